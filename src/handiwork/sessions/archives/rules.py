"""What an archive may hold. One thing against the rules refuses the whole archive.

No name leads out of the archive's own tree, nothing but files and directories, no file twice, no
bit that gives rights, and no more bytes than the limits say, however small the archive.
"""

import stat
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field

from handiwork.model.errors import HandiworkError

_FORBIDDEN_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
_RATIO_COUNTS_FROM_BYTES = 1024 * 1024
_MAX_NAME_BYTES = 255


class ArchiveError(HandiworkError):
    """The archive is malformed, over a limit or against a rule; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """Bounds of one archive. `ratio` is of what comes out to what went in, from 1 MiB on."""

    members: int = 4000
    total_bytes: int = 64 * 1024 * 1024
    ratio: int = 200
    path_bytes: int = 512
    depth: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveFile:
    """One file: a relative path of plain names, 0o644 or 0o755, its bytes."""

    path: str
    mode: int
    data: bytes = field(repr=False)


class Budget:
    """What is left of the limits while one archive is read; `expired` says that time is up."""

    def __init__(
        self, limits: ArchiveLimits, archive_bytes: int, expired: Callable[[], bool]
    ) -> None:
        self.limits = limits
        self._expired = expired
        self._archive_bytes = archive_bytes
        self._members = 0
        self._bytes = 0

    def member(self) -> None:
        """Count one entry of any kind."""
        self._members += 1
        self.check_time()
        if self._members > self.limits.members:
            raise ArchiveError(f"the archive has more than {self.limits.members} members")

    def spend(self, size: int) -> None:
        """Count bytes that came out."""
        self._bytes += size
        self.check_time()
        if self._bytes > self.limits.total_bytes:
            raise ArchiveError(f"the archive unpacks to more than {self.limits.total_bytes} bytes")
        if self._bytes > max(_RATIO_COUNTS_FROM_BYTES, self.limits.ratio * self._archive_bytes):
            raise ArchiveError(
                f"the archive unpacks to more than {self.limits.ratio} times its size"
            )

    def room(self) -> int:
        """Return how many bytes may come out before a limit is passed, and one more."""
        most = max(_RATIO_COUNTS_FROM_BYTES, self.limits.ratio * self._archive_bytes)
        return min(self.limits.total_bytes, most) - self._bytes + 1

    def check_time(self) -> None:
        """Raise ArchiveError once time is up."""
        if self._expired():
            raise ArchiveError("the archive takes too long to unpack")


class Tree:
    """The files that came out so far."""

    def __init__(self, budget: Budget) -> None:
        self._limits = budget.limits
        self._files: dict[str, ArchiveFile] = {}
        self._directories: set[str] = set()

    def directory(self, name: bytes) -> None:
        """Take in a directory; the same one may come twice."""
        path = self.path_of(name.rstrip(b"/"))
        if path in self._files:
            raise ArchiveError(f"the archive has {path!r} as a file and as a directory")
        self._directories.add(path)
        self._above(path)

    def file(self, name: bytes, mode: int, data: bytes) -> None:
        """Take in a file."""
        path = self.path_of(name)
        if not path:
            raise ArchiveError("the archive has a file without a name")
        if mode & (stat.S_ISUID | stat.S_ISGID):
            raise ArchiveError(f"the archive's {path!r} would give rights (setuid or setgid)")
        if path in self._files or path in self._directories:
            raise ArchiveError(f"the archive has {path!r} twice")
        self._above(path)
        self._files[path] = ArchiveFile(path=path, mode=0o755 if mode & 0o111 else 0o644, data=data)

    def done(self) -> tuple[ArchiveFile, ...]:
        """Return all files by path, without the one directory that holds everything."""
        tops = {path.partition("/")[0] for path in {*self._files, *self._directories} - {""}}
        top = next(iter(tops)) + "/" if len(tops) == 1 else ""
        if not top or any(not path.startswith(top) for path in self._files):
            top = ""
        return tuple(
            ArchiveFile(path=path.removeprefix(top), mode=one.mode, data=one.data)
            for path, one in sorted(self._files.items())
        )

    def path_of(self, name: bytes) -> str:
        """Return the name as a path of plain names; empty for the tree itself."""
        try:
            text = name.decode()
        except UnicodeDecodeError:
            raise ArchiveError(f"the archive has a name that is no UTF-8: {name[:80]!r}") from None
        if len(name) > self._limits.path_bytes:
            raise ArchiveError(f"the archive has a path of over {self._limits.path_bytes} bytes")
        if text.startswith("/") or "\\" in text or text[1:2] == ":":
            raise ArchiveError(f"the archive has an absolute or foreign path: {text[:80]!r}")
        if any(unicodedata.category(one) in _FORBIDDEN_CATEGORIES for one in text):
            raise ArchiveError(f"the archive has a name with control characters: {text[:80]!r}")
        parts = [part for part in text.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise ArchiveError(f"the archive has a path with '..': {text[:80]!r}")
        if len(parts) > self._limits.depth:
            raise ArchiveError(f"the archive is deeper than {self._limits.depth} directories")
        if any(len(part.encode()) > _MAX_NAME_BYTES for part in parts):
            raise ArchiveError(f"the archive has a name of over {_MAX_NAME_BYTES} bytes")
        return unicodedata.normalize("NFC", "/".join(parts))

    def _above(self, path: str) -> None:
        """Note the directories above; none of them may be a file."""
        while path := path.rpartition("/")[0]:
            if path in self._files:
                raise ArchiveError(f"the archive has {path!r} as a file and as a directory")
            self._directories.add(path)
