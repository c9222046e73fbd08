"""Where an image lies: `<digest>/` with `root/`, `image.json`, `roots.pem`, perhaps `image.erofs`.

`names.json` beside them says what digest each name stands for. What begins with `.building-` is not
whole, and is deleted at the next start.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.trees import flush_one, remove_tree

TREE, RECORD, ROOTS, EROFS, NAMES = "root", "image.json", "roots.pem", "image.erofs", "names.json"
BUILDING = ".building-"
DIGEST = re.compile("[0-9a-f]{64}")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is written beside the tree."""

    source: str
    size_bytes: int = 0
    entries: int = 0
    created_at: datetime | None = None
    env: Mapping[str, str] = {}
    workdir: str = ""
    user: str = ""
    host_usr: bool = False


def image_at(directory: Path, digest: str) -> Image | None:
    """Return the image of a digest, None when it is not there."""
    record = record_at(directory, digest)
    if record is None:
        return None
    place = directory / digest
    erofs = place / EROFS
    return Image(
        digest=digest,
        tree=place / TREE,
        erofs=erofs if erofs.is_file() else None,
        host_usr=record.host_usr,
        roots=place / ROOTS,
        env=record.env,
    )


def record_at(directory: Path, digest: str) -> Record | None:
    """Return what is written of an image, None when it is not there."""
    place = directory / digest
    if not DIGEST.fullmatch(digest) or not (place / TREE).is_dir():
        return None
    try:
        return msgspec.json.decode((place / RECORD).read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError) as error:
        raise SandboxUnavailableError(
            f"image {digest[:12]} in {directory} is damaged ({error}): remove it and make it again"
        ) from None


def digests(directory: Path) -> Iterator[str]:
    """Yield the digest of every image there."""
    if directory.is_dir():
        found = (entry.name for entry in directory.iterdir())
        yield from sorted(name for name in found if DIGEST.fullmatch(name))


def read_names(directory: Path) -> dict[str, str]:
    """Return what digest each name stands for."""
    try:
        return msgspec.json.decode((directory / NAMES).read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise SandboxUnavailableError(f"{directory / NAMES} cannot be read: {error}") from None


def write_names(directory: Path, names: Mapping[str, str]) -> None:
    """Write the names whole or not at all."""
    beside = directory / f".{NAMES}"
    beside.write_bytes(msgspec.json.format(msgspec.json.encode(dict(sorted(names.items())))))
    flush_one(beside)
    beside.rename(directory / NAMES)


def reap(directory: Path) -> None:
    """Delete what interrupted builds and removals left; blocks."""
    if directory.is_dir():
        for entry in directory.iterdir():
            if entry.name.startswith(BUILDING):
                remove_tree(entry)
