"""One image, as drivers see it."""

from collections.abc import Mapping
from pathlib import Path

import msgspec


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A read-only tree, named by the digest of all it holds; every path is ours, none a guest's.

    `tree` is the root directory: never open a path below it without refusing links. `erofs` is the
    same tree as one file, where it was made. `host_usr` says that this host's own /usr belongs over
    the tree's empty one, read-only. `roots` is a file of the certificates that the image trusts; `env` is for its commands, under all else.
    """

    digest: str
    tree: Path
    erofs: Path | None = None
    host_usr: bool = False
    roots: Path
    env: Mapping[str, str] = {}
