"""How chunks, packs and manifests are named and sealed, by keys of one tenant.

A chunk's name is a keyed hash: who does not hold the tenant's key cannot ask the store whether a
content is there. Each pack has a key of its own, so that a chunk's place in it is its nonce.
"""

import hashlib
import hmac
import os
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from handiwork.model.errors import SandboxUnavailableError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

KEY_BYTES = 32
ID_BYTES = 16
NONCE_BYTES = 12
LEVEL = 1
_RAW, _ZSTD = b"\0", b"\1"


class DamagedError(SandboxUnavailableError):
    """What the store keeps is not what was written to it."""


class Keys:
    """The keys of one tenant's snapshots, derived from its one root key."""

    def __init__(self, root: bytes) -> None:
        if len(root) != KEY_BYTES:
            raise ValueError(f"the root key of snapshots has {KEY_BYTES} bytes")
        self._names = self._derived(root, b"names of chunks")
        self._packs = self._derived(root, b"packs")
        self._manifests = self._derived(root, b"manifests")

    @staticmethod
    def _derived(root: bytes, purpose: bytes) -> bytes:
        return hmac.digest(root, b"handiwork snapshots 1: " + purpose, "sha256")

    def name(self, content: bytes | memoryview) -> bytes:
        """Return the name of a chunk."""
        return hmac.digest(self._names, hashlib.sha256(content).digest(), "sha256")

    def pack(self, pack_id: bytes) -> AESGCM:
        """Return the key of one pack; its id is drawn at random and never used again."""
        return AESGCM(hmac.digest(self._packs, pack_id, "sha256"))

    def seal_text(self, plain: bytes, place: str) -> bytes:
        """Compress and seal a part of a manifest, for its place alone."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + AESGCM(self._manifests).encrypt(nonce, compressed(plain), place.encode())

    def open_text(self, sealed: bytes, place: str, limit_bytes: int) -> bytes:
        """Return what was sealed for this place; DamagedError when it is another's or changed."""
        nonce, rest = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            packed = AESGCM(self._manifests).decrypt(nonce, rest, place.encode())
        except (InvalidTag, ValueError):
            raise DamagedError(
                f"{place} is damaged, or was sealed under another key; it is left as it is"
            ) from None
        return expanded(packed, limit_bytes, place)


class Compressor:
    """One thread's: what it needs to begin is made once for many contents."""

    def __init__(self) -> None:
        self._zstd = zstd.ZstdCompressor(level=LEVEL)

    def compressed(self, plain: bytes | memoryview) -> bytes:
        """Return a byte that tells how, and the content: packed where that makes it smaller."""
        packed = self._zstd.compress(plain, zstd.ZstdCompressor.FLUSH_FRAME)
        return _ZSTD + packed if len(packed) < len(plain) else _RAW + bytes(plain)


def compressed(plain: bytes | memoryview) -> bytes:
    """Return one content as `Compressor` does."""
    return Compressor().compressed(plain)


def expanded(packed: bytes, limit_bytes: int, place: str) -> bytes:
    """Return what `compressed` took; DamagedError when it is no such thing or over the limit."""
    kind, rest = packed[:1], memoryview(packed)[1:]
    if kind == _RAW and len(rest) <= limit_bytes:
        return bytes(rest)
    if kind == _ZSTD:
        opener = zstd.ZstdDecompressor()
        try:
            plain = opener.decompress(rest, max_length=limit_bytes + 1)
        except zstd.ZstdError:
            plain = b""
        if opener.eof and not opener.unused_data and len(plain) <= limit_bytes:
            return plain
    raise DamagedError(f"{place} does not open, or holds more than {limit_bytes} bytes")


def nonce_at(offset: int) -> bytes:
    """Return the nonce of the chunk at an offset of its pack."""
    return struct.pack(">IQ", 0, offset)
