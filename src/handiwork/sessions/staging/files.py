"""The operator's store of files to stage: one directory, its files by their names."""

import os
import stat
from pathlib import Path

from handiwork.model.errors import NotFoundError, UnsupportedError
from handiwork.sessions.staging.wishes import is_file_id

MAX_FILE_BYTES = 256 * 1024 * 1024


def read_file(directory: str, file_id: str) -> bytes:
    """Return a file's bytes. Links are not followed, nothing above or below the directory is read."""
    if not directory:
        raise UnsupportedError("no files can be staged here: staging.files_dir is not set")
    if not is_file_id(file_id):
        raise UnsupportedError(f"{file_id[:80]!r} is no id of a file")
    try:
        place = os.open(Path(directory), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NotFoundError(f"staging.files_dir cannot be read: {error.strerror}") from None
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(file_id, flags, dir_fd=place), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise NotFoundError(f"{file_id} in staging.files_dir is no plain file")
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise NotFoundError(f"no file {file_id} in staging.files_dir: {error.strerror}") from None
    finally:
        os.close(place)
    if len(content) > MAX_FILE_BYTES:
        raise UnsupportedError(f"{file_id} in staging.files_dir is over {MAX_FILE_BYTES} bytes")
    return content
