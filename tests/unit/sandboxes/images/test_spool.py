"""Streams: compressed or not, checked, bounded."""

import gzip
import hashlib
import os

import pytest

from handiwork.model.errors import ConfigError, SandboxUnavailableError
from handiwork.sandboxes.images.rules import ImageLimits
from handiwork.sandboxes.images.spool import fill, hashed, pieces, plain, unnamed

LIMITS = ImageLimits()
DATA = os.urandom(3_000_000)


def cut(data, size=10_000):
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1000, 65_536, 4_000_000])
def test_gzip_is_undone_and_what_is_plain_is_kept(size):
    packed = gzip.compress(DATA, 1)
    assert b"".join(plain(cut(packed, size), LIMITS)) == DATA
    assert b"".join(plain(cut(packed + gzip.compress(b"more") + b"\0" * 512, size), LIMITS)) == (
        DATA + b"more"
    )
    assert b"".join(plain(cut(DATA, size), LIMITS)) == DATA
    assert b"".join(plain([b"\x1f", packed[1:]], LIMITS)) == DATA
    assert list(plain([], LIMITS)) in ([], [b""])


def test_a_bomb_is_stopped_early():
    bomb = gzip.compress(b"\0" * (300 << 20), 9)
    out = plain(cut(bomb), LIMITS)
    taken = [len(next(out)) for _ in range(64)]
    with pytest.raises(ConfigError, match="300 times"):
        taken.extend(len(piece) for piece in out)
    assert sum(taken) <= 130 << 20


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (gzip.compress(DATA, mtime=0)[:-9], "cut short"),
        (gzip.compress(DATA, mtime=0)[:-9] + b"x" * 9, "malformed"),
        (gzip.compress(b"x", mtime=0) + b"rest", "malformed"),
        (b"\x28\xb5\x2f\xfd1234", "zstd"),
        (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
    ],
)
def test_a_fault_is_named(data, said):
    with pytest.raises(ConfigError, match=said):
        b"".join(plain(cut(data), LIMITS))


def test_a_wrong_digest_is_named():
    told = hashlib.sha256(b"ab").hexdigest()
    assert list(hashed([b"a", b"b"], told, "it")) == [b"a", b"b"]
    with pytest.raises(ConfigError, match=f"layer 3 has the digest .* told to have sha256:{told}"):
        list(hashed([b"a", b"c"], told, "layer 3"))


def test_no_room_is_told():
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(SandboxUnavailableError, match="no room"):
        fill(full, [b"x"], 9)
    os.close(full)


def test_files_without_a_name(tmp_path):
    file = unnamed(tmp_path)
    assert fill(file, [b"ab", b"cd"], 4) == 4
    assert b"".join(pieces(file, 1, 2)) == b"bc"
    with pytest.raises(ConfigError, match="cut short"):
        list(pieces(file, 2, 3))
    with pytest.raises(ConfigError, match="larger than 4"):
        fill(file, [b"abc", b"de"], 4)
    assert list(tmp_path.iterdir()) == []
    os.close(file)
