"""What a memory may be called and hold, and how a store's paths are listed. Pure."""

import hashlib
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Sequence

MAX_PATH_BYTES = 1024
MAX_SEGMENTS = 20
MAX_SEGMENT_BYTES = 255
"""What a file system takes as one name: a memory is mounted as a file."""
MAX_CONTENT_BYTES = 100 * 1024
MAX_MEMORIES = 2000
MAX_STORES = 8
"""Memory stores of one session."""
MOUNT = "/mnt/memory/"

_REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_NOT_SLUG = re.compile(r"[^a-z0-9]+")


class MemoryRuleError(ValueError):
    """The path or content cannot be kept; the text says which rule it breaks."""


def check_path(path: str) -> str:
    """Return the path; MemoryRuleError unless it names a file below the store's root."""
    if not path.startswith("/"):
        raise MemoryRuleError("path: must start with '/'")
    segments = path[1:].split("/")
    if len(segments) > MAX_SEGMENTS:
        raise MemoryRuleError(f"path: has more than {MAX_SEGMENTS} segments")
    if any(segment in ("", ".", "..") for segment in segments):
        raise MemoryRuleError("path: a segment is empty, '.' or '..'")
    if any(unicodedata.category(char) in _REFUSED_CATEGORIES for char in path):
        raise MemoryRuleError("path: has a control, format or line separator character")
    if unicodedata.normalize("NFC", path) != path:
        raise MemoryRuleError("path: is not in Unicode Normalization Form C")
    if len(path.encode()) > MAX_PATH_BYTES:
        raise MemoryRuleError(f"path: is longer than {MAX_PATH_BYTES} bytes")
    if any(len(segment.encode()) > MAX_SEGMENT_BYTES for segment in segments):
        raise MemoryRuleError(f"path: a segment is longer than {MAX_SEGMENT_BYTES} bytes")
    return path


def check_prefix(prefix: str) -> str:
    """Return the prefix of a listing; MemoryRuleError unless it ends whole segments."""
    if not (prefix.startswith("/") and prefix.endswith("/")):
        raise MemoryRuleError("path_prefix: must start and end with '/'")
    if prefix != "/":
        check_path(prefix[:-1])
    return prefix


def check_content(content: str) -> str:
    """Return the content; MemoryRuleError when it is too long."""
    if len(content.encode()) > MAX_CONTENT_BYTES:
        raise MemoryRuleError(f"content: is longer than {MAX_CONTENT_BYTES} bytes")
    return content


def digest(content: str) -> str:
    """Return the SHA-256 of the content's UTF-8 bytes, in lower-case hexadecimal."""
    return hashlib.sha256(content.encode()).hexdigest()


def collides(path: str, others: Iterable[str]) -> str | None:
    """Return the path that cannot stand beside this one: the same, or one as directory of the other."""
    below = f"{path}/"
    for other in others:
        if other == path or other.startswith(below) or path.startswith(f"{other}/"):
            return other
    return None


def listing(paths: Sequence[str], prefix: str, depth: int) -> list[str]:
    """Return what a listing shows of sorted paths: memories, and prefixes (ending in '/') for deeper ones.

    `depth` counts segments below the prefix; 0 shows every memory.
    """
    shown: list[str] = []
    for path in paths[bisect_left(paths, prefix) :]:
        if not path.startswith(prefix):
            break
        segments = path[len(prefix) :].split("/")
        if depth == 0 or len(segments) <= depth:
            shown.append(path)
            continue
        marker = f"{prefix}{'/'.join(segments[:depth])}/"
        if not shown or shown[-1] != marker:
            shown.append(marker)
    return shown


def mount_path(name: str, taken: Iterable[str]) -> str:
    """Return where a store of this name is mounted in a session, beside those that are."""
    slug = _NOT_SLUG.sub("-", name.lower()).strip("-")[:64].strip("-") or "memory"
    used = set(taken)
    numbered = (slug if number == 1 else f"{slug}-{number}" for number in range(1, MAX_STORES + 2))
    return next(f"{MOUNT}{each}" for each in numbered if f"{MOUNT}{each}" not in used)
