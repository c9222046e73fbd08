"""Any tree survives any archive; any damage is refused or harmless; nothing leads outside."""

import bz2
import gzip
import lzma
import tarfile
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archives import tarred, zipped
from handiwork.sessions.archives.rules import ArchiveError, ArchiveLimits
from handiwork.sessions.archives.unpack import unpack

LIMITS = ArchiveLimits(members=50, total_bytes=256 * 1024)
NAMES = st.text("abcdef.-_é", min_size=1, max_size=12).filter(lambda name: name.strip("."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PACKS = st.sampled_from([bytes, gzip.compress, bz2.compress, lzma.compress])
FORMATS = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
METHODS = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])


def is_a_tree(files):
    """Say whether no file stands where another needs a directory."""
    return not any(other.startswith(f"{path}/") for path in files for other in files)


TREES = st.dictionaries(PATHS, st.binary(max_size=2000), min_size=1, max_size=12).filter(is_a_tree)
ARCHIVES = st.one_of(
    st.builds(zipped, TREES, METHODS),
    st.builds(lambda files, form, pack: pack(tarred(files, form)), TREES, FORMATS, PACKS),
)
DAMAGES = st.lists(
    st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=8)), max_size=4
)


def checked(archive):
    """Unpack what may be anything: files within the rules come out, or ArchiveError."""
    try:
        files = unpack(archive, LIMITS)
    except ArchiveError:
        return
    assert len(files) <= LIMITS.members
    assert sum(len(one.data) for one in files) <= max(len(archive), LIMITS.total_bytes)
    paths = [one.path for one in files]
    assert len(set(paths)) == len(paths)
    for one in files:
        assert one.mode in (0o644, 0o755)
        parts = one.path.split("/")
        assert not {"", ".", ".."} & set(parts)
        assert len(one.path.encode()) <= 3 * LIMITS.path_bytes


def damaged(archive, damages):
    data = bytearray(archive)
    for at, junk in damages:
        place = at % (len(data) + 1)
        data[place : place + len(junk)] = junk
    return bytes(data)


@given(TREES, METHODS, FORMATS, PACKS)
@settings(deadline=None)
def test_what_went_in_comes_out(files, method, form, pack):
    boxed = {f"top/{path}": data for path, data in files.items()}
    for archive in (zipped(boxed, method), pack(tarred(boxed, form))):
        found = {one.path: one.data for one in unpack(archive, LIMITS)}
        assert found == files


@given(ARCHIVES, DAMAGES)
@settings(deadline=None)
def test_damage_is_refused_or_harmless(archive, damages):
    checked(damaged(archive, damages))


@given(
    st.binary(max_size=4000),
    st.sampled_from([b"PK\x03\x04", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", b""]),
)
@settings(deadline=None)
def test_garbage_is_refused(garbage, magic):
    checked(magic + garbage)


@pytest.mark.slow
@pytest.mark.timeout(600)
@given(ARCHIVES, DAMAGES)
@settings(deadline=None, max_examples=2500)
def test_fuzz(archive, damages):
    checked(damaged(archive, damages))
