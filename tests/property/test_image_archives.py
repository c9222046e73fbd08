"""Whatever an archive says, nothing is written outside its tree, and what it refuses it names."""

import os
import stat
import tarfile
import tempfile
from contextlib import ExitStack
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from handiwork.model.errors import ConfigError
from handiwork.sandboxes.images.reading import unpack
from handiwork.sandboxes.images.rules import ImageLimits
from handiwork.sandboxes.images.writing import Writer
from image_archives import Oci, entry, tar

LIMITS = ImageLimits(entries=200, total_bytes=1 << 20, archive_bytes=4 << 20, layers=4, depth=12)
PARTS = st.sampled_from(
    ["a", "b", "c", "..", ".", "", "etc", ".wh.a", ".wh..wh..opq", "dev", "\udc80", "x" * 256]
)
PATHS = st.lists(PARTS, min_size=1, max_size=5).map("/".join)
KINDS = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE]
)
OUTSIDE = "/outside/canary"


@st.composite
def member(draw):
    kind = draw(KINDS)
    data = draw(st.binary(max_size=20)) if kind == tarfile.REGTYPE else b""
    target = draw(PATHS | st.sampled_from([OUTSIDE, "..", "/", "../../../outside"]))
    return entry(
        draw(PATHS),
        data,
        kind=kind,
        linkname=target if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else "",
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.sampled_from([0, 5, 65_535, 65_536])),
    )


LAYERS = st.lists(st.lists(member(), max_size=8), min_size=1, max_size=4)


def made(data, folder):
    """Write what the archive holds below the folder; its digest, or what was wrong with it."""
    with ExitStack() as files:
        try:
            found = unpack([data], folder, files, limits=LIMITS)
        except ConfigError as error:
            return str(error)
        owned = os.geteuid() == 0
        return Writer(found.sources, owned=owned).write(found.root, folder / "root")


@settings(deadline=None, max_examples=150)
@given(LAYERS)
def test_nothing_leads_out(layers):
    try:
        data = Oci(*(tar(*one) for one in layers)).tar()
    except UnicodeEncodeError:
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "inner"
        folder.mkdir()
        (Path(place) / "outside").mkdir()
        (Path(place) / "outside/canary").write_text("alive")
        told = made(data, folder)
        assert told
        assert {p.name for p in Path(place).iterdir()} == {"inner", "outside"}
        assert (Path(place) / "outside/canary").read_text() == "alive"
        assert {p.name for p in folder.iterdir()} <= {"root"}
        for path in (folder / "root").rglob("*"):
            mode = path.lstat().st_mode
            assert stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_any_bytes_are_an_image_or_an_error(data):
    """A well-formed archive with bytes changed, cut or added."""
    whole = bytearray(Oci(tar(entry("a", b"1"), entry("b/c", b"2" * 600))).tar())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    with tempfile.TemporaryDirectory() as place:
        assert made(bytes(whole), Path(place))


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=4096))
def test_noise_is_refused(noise):
    with tempfile.TemporaryDirectory() as place:
        assert made(noise, Path(place))


def test_an_archive_that_is_sound_is_written():
    """The positive control of the above."""
    with tempfile.TemporaryDirectory() as place:
        assert len(made(Oci(tar(entry("a", b"1"))).tar(), Path(place))) == 64
        assert (Path(place) / "root/a").read_bytes() == b"1"
