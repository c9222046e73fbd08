"""Packs: many sealed chunks in one blob, in the order in which they came."""

import threading
from collections import OrderedDict
from collections.abc import Callable

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from handiwork.model.errors import NotFoundError
from handiwork.sandboxes.snapshots.chunks import MAX_BYTES
from handiwork.sandboxes.snapshots.sealing import DamagedError, Keys, expanded, nonce_at
from handiwork.store.blobs import Blobs

PACK_BYTES = 16 * 1024 * 1024
CACHED_PACKS = 4
_Kept = tuple[memoryview, AESGCM]


class ChunkPlace(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a chunk lies: `pack` counts in the manifest's list, sizes in bytes."""

    name: bytes
    pack: int
    offset: int
    stored: int
    size: int


def pack_key(tenant: str, pack_id: bytes) -> str:
    """Return the blob of a pack."""
    return f"{tenant}/packs/{pack_id.hex()[:2]}/{pack_id.hex()}"


class Pack:
    """A pack that is being filled; no call at once with another."""

    def __init__(self, keys: Keys, pack_id: bytes) -> None:
        self.id = pack_id
        self.size = 0
        self._parts: list[bytes] = []
        self._key = keys.pack(pack_id)

    def add(self, name: bytes, packed: bytes) -> tuple[int, int]:
        """Append a compressed chunk, sealed under its name; return offset and stored size."""
        offset = self.size
        sealed = self._key.encrypt(nonce_at(offset), packed, name)
        self._parts.append(sealed)
        self.size += len(sealed)
        return offset, len(sealed)

    def data(self) -> bytes:
        """Return the whole of it."""
        return b"".join(self._parts)


class PackReader:
    """Chunks out of packs; each pack is fetched whole and the last few are kept."""

    def __init__(self, blobs: Blobs, keys: Keys, tenant: str) -> None:
        self._blobs = blobs
        self._keys = keys
        self._tenant = tenant
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def chunk(self, pack_id: bytes, place: ChunkPlace, tell: Callable[[], str]) -> bytes:
        """Return a chunk's content; DamagedError names it, its pack and what `tell` says of its use."""
        where = f"chunk {place.name.hex()[:16]} of pack {pack_id.hex()}"
        pack, key = self._pack(pack_id, where, tell)
        sealed = pack[place.offset : place.offset + place.stored]
        try:
            packed = key.decrypt(nonce_at(place.offset), sealed, place.name)
            content = expanded(packed, min(place.size, MAX_BYTES), where)
        except (InvalidTag, ValueError, DamagedError):
            raise DamagedError(f"{where} is damaged ({tell()})") from None
        if len(content) != place.size or self._keys.name(content) != place.name:
            raise DamagedError(f"{where} does not have the content of its name ({tell()})")
        return content

    def _pack(self, pack_id: bytes, where: str, tell: Callable[[], str]) -> _Kept:
        with self._lock:
            if pack_id in self._kept:
                self._kept.move_to_end(pack_id)
                return self._kept[pack_id]
            try:
                data = self._blobs.get(pack_key(self._tenant, pack_id))
            except NotFoundError:
                raise DamagedError(f"{where} is gone from the store ({tell()})") from None
            kept = self._kept[pack_id] = (memoryview(data), self._keys.pack(pack_id))
            if len(self._kept) > CACHED_PACKS:
                self._kept.popitem(last=False)
            return kept
