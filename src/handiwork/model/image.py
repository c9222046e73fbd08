"""Images as operators see them, and what they are built from."""

import re
from collections.abc import Mapping
from datetime import datetime

import msgspec

from handiwork.model.errors import ConfigError

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
HOST_IMAGE = "host"
"""The image that every host has: its own /usr, read-only."""


class ImageInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One image: every name that stands for it, what it was made from, what it holds.

    `size_bytes` is of the contents, `entries` counts names. `env` is set for every command in a
    sandbox that stands on it, under the sandbox's own. `has_file` says that it is one file as well.
    `damaged` says why nothing can stand on it; then the rest is not known.
    """

    digest: str
    names: tuple[str, ...] = ()
    source: str
    size_bytes: int = 0
    entries: int = 0
    created_at: datetime | None = None
    env: Mapping[str, str] = {}
    workdir: str = ""
    user: str = ""
    has_file: bool = False
    host_usr: bool = False
    damaged: str = ""


class ImageProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a build is: what it does, and how much of it is done (`total` 0: nobody knows)."""

    stage: str
    done: int = 0
    total: int = 0


def check_image_name(name: str) -> str:
    """Return a name for an image; ConfigError says what is wrong with it."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"image name {name[:80]!r}: use at most 63 of a-z, 0-9, '.', '_', '-', a letter or digit first"
        )
    if name == HOST_IMAGE:
        raise ConfigError("the image 'host' is this host's own; use another name")
    return name
