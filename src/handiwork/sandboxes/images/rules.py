"""What an image may hold, and how much of it: every number here refuses by name. Pure."""

import msgspec

from handiwork.model.errors import ConfigError


class ImageLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one image. `ratio` is of what comes out to what went in, from 64 MiB on."""

    archive_bytes: int = 32 << 30
    total_bytes: int = 32 << 30
    entries: int = 400_000
    layers: int = 128
    ratio: int = 300
    path_bytes: int = 4096
    depth: int = 100
    extension_bytes: int = 1 << 20
    attributes_bytes: int = 64 << 10
    document_bytes: int = 8 << 20


RATIO_COUNTS_FROM_BYTES = 64 << 20
NAME_BYTES = 255
IDS = 65_536
"""Owners that a sandbox can have: its range of ids."""


def shown(name: bytes) -> str:
    """Return a name of an archive as an error may quote it: short and printable."""
    return repr(name[:120].decode("utf-8", "backslashreplace"))


def parts_of(name: bytes, limits: ImageLimits) -> tuple[bytes, ...]:
    """Return the plain names of an archive's path, () for its root; ConfigError if it leads out."""
    if name.startswith(b"/"):
        raise ConfigError(f"the archive has an absolute path: {shown(name)}")
    if len(name) > limits.path_bytes:
        raise ConfigError(f"the archive has a path of over {limits.path_bytes} bytes")
    if b"\0" in name:
        raise ConfigError(f"the archive has a path with a zero byte: {shown(name)}")
    parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise ConfigError(f"the archive has a path with '..': {shown(name)}")
    if len(parts) > limits.depth:
        raise ConfigError(f"the archive is deeper than {limits.depth} directories: {shown(name)}")
    if any(len(part) > NAME_BYTES for part in parts):
        raise ConfigError(f"the archive has a name of over {NAME_BYTES} bytes: {shown(name)}")
    return parts
