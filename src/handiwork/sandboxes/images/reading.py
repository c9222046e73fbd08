"""Archives read from disk: into files without a name first, so that nobody changes them meanwhile."""

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Self

import msgspec

from handiwork.model.errors import ConfigError
from handiwork.sandboxes.images import archive, spool, tars
from handiwork.sandboxes.images.archive import Blob, Found, Layer
from handiwork.sandboxes.images.layers import Layers
from handiwork.sandboxes.images.nodes import Node
from handiwork.sandboxes.images.rules import ImageLimits
from handiwork.sandboxes.images.writing import Progress, silent


class Unpacked(msgspec.Struct, frozen=True, kw_only=True):
    """A tree, the open files that its contents lie in, and what the archive says of it."""

    root: Node
    sources: tuple[int, ...]
    found: Found


def unpack(
    given: Iterable[bytes],
    scratch: Path,
    files: ExitStack,
    *,
    limits: ImageLimits | None = None,
    progress: Progress = silent,
) -> Unpacked:
    """Return the image that an archive's bytes hold; ConfigError says what is wrong with them.

    `files` closes what the tree's contents lie in; `scratch` is where that takes room. Blocks.
    """
    limits = limits or ImageLimits()
    progress("reading", 0, 0)
    outer = _Spooled.make(scratch, files)
    size = outer.take(spool.plain(given, limits), limits.archive_bytes)
    members = list(tars.members(outer.read, size, limits))
    found = archive.find(archive.files(members, limits), outer.document, limits)
    if found.kind == "tree":
        tree = Layers(limits)
        tree.lay(members, 0)
        return Unpacked(root=tree.root, sources=(outer.file,), found=found)
    return _laid(found, outer, scratch, files, limits, progress)


def assemble(
    file: int,
    names: Mapping[str, Blob],
    scratch: Path,
    files: ExitStack,
    *,
    limits: ImageLimits | None = None,
    progress: Progress = silent,
) -> Unpacked:
    """Return the image of an OCI layout whose files lie in an open one. Errors as of `unpack`."""
    limits = limits or ImageLimits()
    outer = _Spooled(file)
    found = archive.find(names, outer.document, limits)
    return _laid(found, outer, scratch, files, limits, progress)


def _laid(
    found: Found,
    outer: "_Spooled",
    scratch: Path,
    files: ExitStack,
    limits: ImageLimits,
    progress: Progress,
) -> Unpacked:
    tree = Layers(limits)
    sources: list[int] = []
    for number, layer in enumerate(found.layers):
        progress("unpacking", number, len(found.layers))
        inner = _layer(outer, layer, scratch, files, limits)
        tree.lay(tars.members(inner.read, inner.size, limits), len(sources))
        sources.append(inner.file)
    return Unpacked(root=tree.root, sources=tuple(sources), found=found)


def of_recipe(made: Unpacked, env: Mapping[str, str]) -> Unpacked:
    """Return the same with the variables that a recipe gives its sandboxes."""
    found = msgspec.structs.replace(made.found, kind="recipe", env=dict(env))
    return msgspec.structs.replace(made, found=found)


def _layer(
    outer: "_Spooled", layer: Layer, scratch: Path, files: ExitStack, limits: ImageLimits
) -> "_Spooled":
    blob = layer.blob
    inner = _Spooled.make(scratch, files)
    given: Iterable[bytes] = spool.pieces(outer.file, blob.offset, blob.size)
    if blob.sha256:
        given = spool.hashed(given, blob.sha256, f"the archive's {blob.name}")
    tar = spool.hashed(
        spool.plain(given, limits), layer.diff_sha256, f"the tar of the archive's {blob.name}"
    )
    inner.take(tar, limits.total_bytes)
    return inner


class _Spooled:
    """Bytes in a file without a name."""

    def __init__(self, file: int) -> None:
        self.file = file
        self.size = 0

    @classmethod
    def make(cls, scratch: Path, files: ExitStack) -> Self:
        file = spool.unnamed(scratch)
        files.callback(os.close, file)
        return cls(file)

    def take(self, given: Iterable[bytes], limit: int) -> int:
        self.size = spool.fill(self.file, given, limit)
        return self.size

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self.file, size, offset)

    def document(self, blob: Blob) -> bytes:
        given: Iterable[bytes] = spool.pieces(self.file, blob.offset, blob.size)
        if blob.sha256:
            given = spool.hashed(given, blob.sha256, f"the archive's {blob.name}")
        return b"".join(given)


def file_pieces(path: Path) -> Iterable[bytes]:
    """Yield a file of ours; ConfigError when it cannot be read. Blocks."""
    try:
        with path.open("rb") as file:
            yield from iter(partial(file.read, spool.PIECE_BYTES), b"")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
