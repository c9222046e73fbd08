"""Where an image lies: `<digest>/` with `root/`, `image.json`, `roots.pem`, perhaps `image.erofs`."""

import re
from pathlib import Path

import msgspec

from handiwork.sandboxes.images.image import Image

TREE, RECORD, ROOTS, EROFS = "root", "image.json", "roots.pem", "image.erofs"
_DIGEST = re.compile("[0-9a-f]{64}")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is written beside the tree."""

    host_usr: bool = False


def image_at(directory: Path, digest: str) -> Image | None:
    """Return the image of a digest, None when it is not there."""
    place = directory / digest
    if not _DIGEST.fullmatch(digest) or not (place / TREE).is_dir():
        return None
    record = msgspec.json.decode((place / RECORD).read_bytes(), type=Record)
    erofs = place / EROFS
    return Image(
        digest=digest,
        tree=place / TREE,
        erofs=erofs if erofs.is_file() else None,
        host_usr=record.host_usr,
        roots=place / ROOTS,
    )
