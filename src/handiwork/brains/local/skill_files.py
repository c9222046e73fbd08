"""A skill as it is uploaded: hostile until checked, then packed anew. Nothing touches the disk.

What leaves here is one directory named as the skill, of regular files with plain modes; no path
of it is absolute, climbs, or is a file and a directory at once.
"""

import io
import re
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Sequence

import msgspec

from handiwork.brains.local.memory import MemoryRuleError, check_path, collides

MAX_FILES = 500
MAX_BYTES = 30 * 1024 * 1024
"""Of all files of a skill, unpacked."""
MAX_RATIO = 200
"""How many times its packed size an upload may unpack to, beyond the first MiB."""
MAX_MANIFEST_BYTES = 1024 * 1024
MAX_DESCRIPTION = 1024
MANIFEST = "SKILL.md"
COMPRESSION_LEVEL = 6

_SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_FIELD = re.compile(r"([A-Za-z_-]+):(?:[ \t]+(.*))?")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_FILE_TYPES = frozenset({0, 0o100000})
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
    EOFError,
    OverflowError,
)
"""What `zipfile` raises on archives that are damaged, encrypted or made to confuse it."""


class SkillRefusedError(ValueError):
    """The upload is not a skill; the text says which rule it breaks."""


class SkillFile(msgspec.Struct, frozen=True):
    """One file, its path as uploaded, with the top directory."""

    path: str
    content: bytes
    executable: bool = False


class Skill(msgspec.Struct, frozen=True):
    """A checked skill: its slug, what it says of itself, and its files as a zip archive."""

    name: str
    description: str
    archive: bytes


def packed(uploads: Sequence[tuple[str, bytes]]) -> Skill:
    """Return the skill of an upload, files by name or one zip; SkillRefusedError."""
    if not uploads:
        raise SkillRefusedError("files: is empty; upload SKILL.md and what belongs to it")
    if len(uploads) == 1 and uploads[0][1].startswith(b"PK\x03\x04"):
        files = _unzipped(uploads[0][1])
    else:
        files = [SkillFile(name, content) for name, content in uploads]
    _check_bounds(files)
    top = _checked_top(files)
    manifest = next((each for each in files if each.path == f"{top}/{MANIFEST}"), None)
    if manifest is None:
        raise SkillRefusedError(
            f"files: {MANIFEST} must stand at the root of the directory {top!r}"
        )
    name, description = described(manifest.content, top)
    return Skill(name, description, _zipped(name, top, files))


def described(manifest: bytes, directory: str) -> tuple[str, str]:
    """Return name and description of the front matter; the name is the directory's where absent."""
    if len(manifest) > MAX_MANIFEST_BYTES:
        raise SkillRefusedError(f"{MANIFEST}: is longer than {MAX_MANIFEST_BYTES} bytes")
    try:
        text = manifest.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SkillRefusedError(f"{MANIFEST}: is not UTF-8") from None
    fields = front_matter(text)
    name, description = fields.get("name") or directory, fields.get("description", "")
    if not _SLUG.fullmatch(name) or len(name) > 64:
        raise SkillRefusedError(
            f"{MANIFEST}, name: must be at most 64 lower-case letters, digits and single hyphens"
        )
    if not description or len(description) > MAX_DESCRIPTION:
        raise SkillRefusedError(
            f"{MANIFEST}, description: must have 1 to {MAX_DESCRIPTION} characters"
        )
    return name, description


def front_matter(text: str) -> dict[str, str]:
    """Return the top-level texts of a manifest's front matter: plain, quoted, folded or literal."""
    lines = text.splitlines()
    if not lines or lines[0].rstrip() != "---":
        raise SkillRefusedError(f"{MANIFEST}: must begin with front matter between lines '---'")
    try:
        end = next(at for at, line in enumerate(lines[1:], 1) if line.rstrip() == "---")
    except StopIteration:
        raise SkillRefusedError(f"{MANIFEST}: its front matter has no end '---'") from None
    fields: dict[str, list[str]] = {}
    field: list[str] = []
    for line in lines[1:end]:
        found = _FIELD.fullmatch(line)
        if found:
            field = fields.setdefault(found[1], [])
            field[:] = [found[2] or ""]
        elif line[:1] in (" ", "\t", ""):
            field.append(line)
    return {name: _scalar(given) for name, given in fields.items()}


def _scalar(lines: list[str]) -> str:
    first, rest = lines[0].strip(), [line.strip() for line in lines[1:]]
    if first[:1] in ("|", ">"):
        joint = "\n" if first[0] == "|" else " "
        return joint.join(rest).strip()
    whole = " ".join([first, *rest]).strip()
    quoted = len(whole) > 1 and whole[0] == whole[-1] and whole[0] in "'\""
    return whole[1:-1].strip() if quoted else whole


def _check_bounds(files: Sequence[SkillFile]) -> None:
    if len(files) > MAX_FILES:
        raise SkillRefusedError(f"files: more than {MAX_FILES}")
    if sum(len(each.content) for each in files) > MAX_BYTES:
        raise SkillRefusedError(f"files: more than {MAX_BYTES} bytes in all")


def _checked_top(files: Sequence[SkillFile]) -> str:
    """Return the one top directory of all files, each of which has a path of its own."""
    seen: list[str] = []
    for each in files:
        try:
            path = check_path(f"/{each.path}")
        except MemoryRuleError as broken:
            raise SkillRefusedError(f"files, {each.path[:80]!r}: {broken}") from None
        if "\\" in path:
            raise SkillRefusedError(f"files, {each.path[:80]!r}: has a backslash")
        # Some file systems fold letter case: two names must differ there too.
        folded = unicodedata.normalize("NFC", path.casefold())
        if collides(folded, seen):
            raise SkillRefusedError(f"files, {each.path[:80]!r}: the name stands twice")
        seen.append(folded)
    tops = {each.path.partition("/")[0] for each in files}
    if len(tops) != 1 or any("/" not in each.path for each in files):
        raise SkillRefusedError("files: all must be in one top-level directory")
    return tops.pop()


def _unzipped(packed_bytes: bytes) -> list[SkillFile]:
    try:
        with zipfile.ZipFile(io.BytesIO(packed_bytes)) as archive:
            return list(_members(archive, len(packed_bytes)))
    except SkillRefusedError:
        raise
    except _BROKEN:
        raise SkillRefusedError("files: the zip archive is damaged or encrypted") from None


def _members(archive: zipfile.ZipFile, packed_size: int) -> Iterable[SkillFile]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(entries) > MAX_FILES:
        raise SkillRefusedError(f"files: the zip archive has more than {MAX_FILES}")
    room = min(MAX_BYTES, max(1024 * 1024, packed_size * MAX_RATIO))
    for entry in entries:
        mode = entry.external_attr >> 16
        if mode & 0o170000 not in _FILE_TYPES:
            raise SkillRefusedError(f"files, {entry.filename[:80]!r}: is not a regular file")
        with archive.open(entry) as member:
            content = member.read(room + 1)
        room -= len(content)
        if room < 0:
            raise SkillRefusedError("files: the zip archive unpacks to too much")
        yield SkillFile(entry.filename, content, bool(mode & 0o111))


def _zipped(name: str, top: str, files: Sequence[SkillFile]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=COMPRESSION_LEVEL) as new:
        for each in files:
            entry = zipfile.ZipInfo(f"{name}{each.path[len(top) :]}", _EPOCH)
            entry.create_system = 3
            entry.external_attr = (0o100755 if each.executable else 0o100644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(entry, each.content)
    return buffer.getvalue()
