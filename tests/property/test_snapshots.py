"""Manifests and packs that anybody may have written: refused in our words, or made beneath their root."""

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.model.errors import HandiworkError
from handiwork.sandboxes.snapshots import manifest as m
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.packs import ChunkPlace, Pack, PackReader, pack_key
from handiwork.sandboxes.snapshots.restore import Restore
from handiwork.sandboxes.snapshots.sealing import DamagedError, Keys, compressed
from handiwork.sandboxes.trees import remove_tree
from handiwork.testing.blobs import FakeBlobs

KEYS = Keys(b"k" * 32)
ID = b"i" * 16
PLACE = m.manifest_key("default", "sbx_aaaaaaaa", 1)
CONTENTS = (b"first" * 50, bytes(range(256)) * 9)
OWN = os.geteuid()

small = st.integers(-1, 6)
odd = st.sampled_from([0, 1, 7, 2**31, 2**50, 2**50 + 1, 2**62, -1])
names = st.sampled_from(
    [b"", b".", b"..", b"a", b"b", b"c", b"a/b", b"\0", b"\xff", b"n" * 255, b"n" * 256]
)
targets = st.sampled_from([b"", b"/etc", b"../../..", b"a", b"x\0", b"t" * 4095, b"t" * 4096])
attributes = st.lists(
    st.tuples(
        st.sampled_from(
            [
                b"user.a",
                b"user.\0",
                b"user.",
                b"trusted.overlay.opaque",
                b"security.capability",
                b"user." + b"n" * 300,
            ]
        ),
        st.binary(max_size=30),
    ),
    max_size=2,
).map(tuple)
extents = st.one_of(
    st.just(()),
    st.lists(st.one_of(small, st.integers(0, 300), odd), max_size=9).map(tuple),
    st.tuples(st.integers(0, 50), st.integers(0, 1), st.integers(0, 100), st.integers(1, 200)),
)
entries = st.builds(
    m.Entry,
    parent=small,
    name=names,
    kind=st.integers(-1, 6),
    mode=st.sampled_from([0, 0o644, 0o755, 0o7777, 0o10000]),
    uid=st.sampled_from([0, 0, 0, 1, 70_000, -1]),
    gid=st.just(0),
    mtime_ns=st.sampled_from([0, 10**18, -(10**18), 2**63 - 1, 2**63, 2**64 - 1, -(2**63)]),
    size=st.one_of(st.integers(0, 400), odd),
    extents=extents,
    target=targets,
    xattrs=attributes,
    link=small,
    linked=st.booleans(),
)


def kept():
    """Return a store with one pack of two chunks, and their places."""
    pack, places = Pack(KEYS, ID), []
    for content in CONTENTS:
        name = KEYS.name(content)
        offset, stored = pack.add(name, compressed(content))
        places.append(ChunkPlace(name, 0, offset, stored, len(content)))
    blobs = FakeBlobs()
    blobs.put(pack_key("default", ID), pack.data())
    return blobs, places


BLOBS, PLACES = kept()


def sealed(body: bytes) -> bytes:
    """Return a manifest's blob whose body is sealed as it should be, whatever it is."""
    head = m.Head(
        tenant="default",
        sandbox_id="sbx_aaaaaaaa",
        number=1,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        reason="r",
        image="i",
        tree="t",
        started_ns=0,
        entries=0,
        content_bytes=0,
        new_bytes=0,
        packs=(ID,),
        pack_bytes=(len(BLOBS.get(pack_key("default", ID))),),
    )
    whole = m.encode(m.Manifest(head, m.Body(chunks=(), entries=[])), KEYS)
    end = len(m.MAGIC) + 4 + int.from_bytes(whole[len(m.MAGIC) : len(m.MAGIC) + 4])
    return whole[:end] + KEYS.seal_text(body, f"the body of {PLACE}")


def root() -> m.Entry:
    return m.Entry(-1, b"", m.Kind.DIRECTORY, 0o755, 0, 0, 1)


def made(manifest: m.Manifest) -> None:
    """Make the tree; what stands beside its place must stay as it is."""
    directory = Path(tempfile.mkdtemp(prefix="handiwork-property-", dir="/var/tmp"))
    try:
        (directory / "beside").write_text("host")
        (directory / "for").mkdir()
        place = os.open(directory / "for", os.O_RDONLY | os.O_DIRECTORY)
        try:
            reader = PackReader(BLOBS, KEYS, "default")
            Restore(manifest, reader, Range(0, OWN), place, "made").run()
            assert os.listdir(place) == ["made"]  # noqa: PTH208 # by its descriptor
        except HandiworkError:
            pass
        finally:
            os.close(place)
        assert sorted(path.name for path in directory.iterdir()) == ["beside", "for"]
        assert (directory / "beside").read_text() == "host"
    finally:
        remove_tree(directory)


@given(st.lists(entries, max_size=6))
def test_a_hostile_tree_is_refused_or_stays_beneath_its_root(listed):
    body = m.Body(chunks=tuple(PLACES), entries=[root(), *listed])
    try:
        manifest = m.decode(sealed(msgspec.msgpack.encode(body)), PLACE, KEYS)
    except DamagedError:
        return
    made(manifest)


@given(st.data())
def test_a_tree_that_is_sound_but_for_one_thing_is_too(data):
    listed = [
        root(),
        m.Entry(0, b"d", m.Kind.DIRECTORY, 0o755, 0, 0, 1),
        m.Entry(
            1, b"f", m.Kind.FILE, 0o644, 0, 0, 1, size=250, extents=(0, 0, 0, 250), linked=True
        ),
        m.Entry(1, b"s", m.Kind.SYMLINK, 0o777, 0, 0, 1, target=b"../../../beside"),
        m.Entry(1, b"l", m.Kind.LINK, 0o644, 0, 0, 1, link=2),
    ]
    changed = listed[data.draw(st.integers(1, 4))]
    other = data.draw(entries)
    field = data.draw(st.sampled_from(m.Entry.__struct_fields__))
    setattr(changed, field, getattr(other, field))
    body = m.Body(chunks=tuple(PLACES), entries=listed)
    try:
        manifest = m.decode(sealed(msgspec.msgpack.encode(body)), PLACE, KEYS)
    except DamagedError:
        return
    made(manifest)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.integers(-9, 9) | st.binary(max_size=3),
            lambda inner: st.lists(inner, max_size=4),
            max_leaves=12,
        ).map(msgspec.msgpack.encode),
    )
)
def test_any_body_is_refused_in_our_words(body):
    with pytest.raises(DamagedError, match="sbx_aaaaaaaa"):
        m.decode(sealed(body), PLACE, KEYS)


@given(st.binary(max_size=300))
def test_any_blob_is_refused_in_our_words(blob):
    for bad in (blob, m.MAGIC + blob):
        with pytest.raises(DamagedError, match="sbx_aaaaaaaa"):
            m.decode(bad, PLACE, KEYS)
        with pytest.raises(DamagedError):
            m.decode_head(bad, PLACE, KEYS)


@given(
    st.integers(0, 400),
    st.integers(1, 400),
    st.integers(1, 3000),
    st.sampled_from(PLACES),
    st.booleans(),
)
def test_a_chunk_is_the_one_of_its_name_or_refused(offset, stored, size, place, sound):
    """Wherever a place points to, and even if it is right in all but one thing."""
    asked = ChunkPlace(place.name, 0, offset, stored, size)
    if sound:
        asked = ChunkPlace(place.name, 0, place.offset, place.stored, size)
    try:
        content = PackReader(BLOBS, KEYS, "default").chunk(ID, asked, lambda: "its use")
    except DamagedError:
        return
    assert KEYS.name(content) == place.name
    assert len(content) == size


@given(st.binary(max_size=600), st.sampled_from(PLACES))
def test_any_bytes_as_a_pack_give_no_content(data, place):
    blobs = FakeBlobs()
    blobs.put(pack_key("default", ID), data)
    with pytest.raises(DamagedError, match="its use"):
        PackReader(blobs, KEYS, "default").chunk(ID, place, lambda: "its use")
