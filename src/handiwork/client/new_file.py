"""A new file of this machine: whole under its name, or not there."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from handiwork.model.errors import ConfigError

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}


@contextlib.contextmanager
def new_file(target: Path, *, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Open a file beside, which takes the target's name when all went well, and replaces nothing. ConfigError."""
    if not target.name:
        raise ConfigError(f"{target}: name a new file")
    if os.path.lexists(target):
        raise ConfigError(f"{target}: it exists; name a new file")
    beside = target.with_name(f".{target.name}.part")
    try:
        made = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise ConfigError(f"{beside}: it exists: remove it, unless a transfer writes it") from None
    except OSError as error:
        raise ConfigError(f"{target}: {error.strerror}") from None
    try:
        with os.fdopen(made, "w+b") as file:
            yield file
        _name(beside, target)
    except OSError as error:
        raise ConfigError(f"{target}: {error.strerror}") from None
    finally:
        beside.unlink(missing_ok=True)


def _name(beside: Path, target: Path) -> None:
    """Give a file its name, unless there is one; by a name taken before where nothing can be linked."""
    try:
        target.hardlink_to(beside)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        target.touch(exist_ok=False)
        beside.replace(target)
