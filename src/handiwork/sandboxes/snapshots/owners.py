"""Owners as seen inside a sandbox and outside of it, in ids and in attributes that hold ids."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

IDS = 65_536
OVERFLOW = 65_534

_CAPABILITY = b"security.capability"
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
_OVERLAY = (b"user.overlay.", b"trusted.overlay.")
_OVERLAY_KEPT = (b"opaque", b"whiteout", b"whiteouts")
_OVERLAY_DROPPED = (b"origin", b"impure", b"nlink", b"uuid", b"upper", b"protattr", b"index")
_CAPABILITY_2, _CAPABILITY_3 = 0x02000000, 0x03000000
_ACL_NAMED = (0x02, 0x08)


@dataclass(frozen=True)
class Range:
    """The host ids of a sandbox. `base` 0: rootless, where inside root is `own_id` and nobody else is.

    `later`: what is made has neither owners nor modes yet, nor capabilities, which count for an owner.
    """

    base: int
    own_id: int = 0
    later: bool = False

    def inside(self, host_id: int) -> int:
        """Return the id inside; one of no id of the range is nobody, as the kernel shows it."""
        if self.base:
            inner = host_id - self.base
            return inner if 0 <= inner < IDS else OVERFLOW
        return 0 if host_id == self.own_id else OVERFLOW

    def outside(self, inner: int) -> int | None:
        """Return the host's id, or None where this range has none for it."""
        if self.base:
            return self.base + inner
        return self.own_id if inner == 0 else None


def attribute_inside(name: bytes, value: bytes, ids: Range) -> bytes | None:
    """Return the value to keep of an extended attribute, or None for one that has no place.

    ValueError for one without which the files do not mean what they did.
    """
    for prefix in _OVERLAY:
        if name.startswith(prefix):
            return _overlay(name, name.removeprefix(prefix), value)
    if name == _CAPABILITY:
        return _capability(value)
    if name in _ACLS:
        return _acl(value, ids.inside)
    return value if name.startswith(b"user.") else None


def attribute_outside(name: bytes, value: bytes, ids: Range) -> bytes | None:
    """Return the value to write on the host, or None for one that may not be or cannot be written."""
    for prefix in _OVERLAY:
        if name.startswith(prefix):
            return value if _is_kept(name.removeprefix(prefix)) else None
    if name == _CAPABILITY:
        if not ids.base or ids.later or len(value) != 20:
            return None
        (magic,) = struct.unpack_from("<I", value)
        raised = struct.pack("<I", (magic & 0xFFFFFF) | _CAPABILITY_3)
        return raised + value[4:] + struct.pack("<I", ids.base)
    if name in _ACLS:
        return _acl(value, ids.outside)
    return value if name.startswith(b"user.") else None


def _is_kept(rest: bytes) -> bool:
    return rest in _OVERLAY_KEPT or rest.startswith(b"overlay.")


def _overlay(name: bytes, rest: bytes, value: bytes) -> bytes | None:
    if _is_kept(rest):
        return value
    if rest in _OVERLAY_DROPPED:
        return None
    raise ValueError(f"the attribute {name.decode('ascii', 'replace')} needs the image's files")


def _capability(value: bytes) -> bytes | None:
    """Return the form without an owner: inside, the root it counts for is the sandbox's own."""
    if len(value) not in (20, 24):
        return None
    (magic,) = struct.unpack_from("<I", value)
    return struct.pack("<I", (magic & 0xFFFFFF) | _CAPABILITY_2) + value[4:20]


def _acl(value: bytes, mapped: Callable[[int], int | None]) -> bytes | None:
    if len(value) < 4 or (len(value) - 4) % 8:
        return None
    out = bytearray(value[:4])
    for tag, permissions, owner in struct.iter_unpack("<HHI", value[4:]):
        target = mapped(owner) if tag in _ACL_NAMED else owner
        if target is None:
            return None
        out += struct.pack("<HHI", tag, permissions, target)
    return bytes(out)
