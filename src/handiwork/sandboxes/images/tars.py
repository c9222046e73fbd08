"""Tar archives as a list of members: ustar with GNU and pax extensions (POSIX.1-2017, pax). Pure.

Strict: a wrong checksum, a number or record that does not parse, or a member that stretches beyond
the archive refuses all of it. No content is read, only where it lies.
"""

from collections.abc import Callable, Iterator, Mapping

import msgspec

from handiwork.model.errors import ConfigError
from handiwork.sandboxes.images.rules import ImageLimits, shown

BLOCK = 512
Read = Callable[[int, int], bytes]
"""Returns the bytes at an offset, fewer at the archive's end."""

KINDS = {b"0": "file", b"\0": "file", b"7": "file", b"5": "directory", b"2": "link", b"1": "hard"}
_SPECIAL = {b"3": "a device", b"4": "a device", b"6": "a FIFO"}
_XATTR = b"SCHILY.xattr."
_GNU_NAME, _GNU_TARGET, _PAX, PAX_GLOBAL = b"L", b"K", b"x", b"g"
EXTENSIONS = (_GNU_NAME, _GNU_TARGET, _PAX, PAX_GLOBAL)
"""Headers that only tell of the members after them."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One entry: `content` lies at `offset` of the archive; `kind` is of KINDS, or says what else."""

    name: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    offset: int
    target: bytes = b""
    attributes: Mapping[bytes, bytes] = {}


def members(read: Read, size: int, limits: ImageLimits) -> Iterator[Member]:
    """Yield what an archive of `size` bytes holds; ConfigError at the first fault."""
    at, count = 0, 0
    records: dict[bytes, bytes] = {}
    global_records: dict[bytes, bytes] = {}
    while True:
        header = read(at, BLOCK)
        if len(header) < BLOCK:
            raise ConfigError("the tar archive is cut short")
        if not any(header):
            return
        count += 1
        if count > 3 * limits.entries:
            raise ConfigError(f"the archive has more than {limits.entries} entries")
        check_sum(header)
        kind, told = header[156:157], {**global_records, **records}
        length = length_of(header, told)
        at += BLOCK
        if at + length > size:
            raise ConfigError("the tar archive is cut short")
        if kind in EXTENSIONS:
            length = number(header[124:136])
            found = extension(kind, read(at, length) if length <= limits.extension_bytes else None)
            (global_records if kind == PAX_GLOBAL else records).update(found)
        else:
            yield member(header, told, length, at)
            records = {}
        at += -(-length // BLOCK) * BLOCK


def length_of(header: bytes, told: Mapping[bytes, bytes]) -> int:
    """Return the bytes of a member's content; records stand over its header."""
    return _decimal(told, b"size") if b"size" in told else number(header[124:136])


def member(header: bytes, told: Mapping[bytes, bytes], length: int, at: int) -> Member:
    """Return what a header and the records before it tell of one entry; ConfigError at a fault."""
    kind, name = header[156:157], told.get(b"path") or _name(header)
    known = KINDS.get(kind) or _SPECIAL.get(kind)
    if known is None:
        raise ConfigError(f"the archive has an entry of an unknown kind {kind!r}: {shown(name)}")
    if known == "file" and name.endswith(b"/"):
        known = "directory"
    if known != "file" and length:
        raise ConfigError(f"the archive has content in what is no file: {shown(name)}")
    return Member(
        name=name,
        kind=known,
        mode=number(header[100:108]) & 0o7777,
        uid=_decimal(told, b"uid") if b"uid" in told else number(header[108:116]),
        gid=_decimal(told, b"gid") if b"gid" in told else number(header[116:124]),
        mtime_ns=_time_ns(told[b"mtime"]) if b"mtime" in told else _seconds(header[136:148]),
        size=length,
        offset=at,
        target=told.get(b"linkpath") or header[157:257].split(b"\0")[0],
        attributes={
            key.removeprefix(_XATTR): value for key, value in told.items() if key.startswith(_XATTR)
        },
    )


def check_sum(header: bytes) -> None:
    """Raise ConfigError unless a header's checksum is right."""
    told = number(header[148:156])
    if told != sum(header[:148]) + 8 * 0x20 + sum(header[156:]):
        raise ConfigError("the tar archive has a header whose checksum is wrong")


def check_prefix(header: bytes) -> None:
    """Raise ConfigError for a prefix of the name that some read and some do not: not all ask whose form it is."""
    if header[257:263] != b"ustar\0" and any(header[345:500]):
        raise ConfigError("the tar archive has a prefix of a name in a header that is not ustar's")


def number(digits: bytes) -> int:
    """Return a header's number: octal, or binary when its first bit is set (GNU)."""
    if digits[0] & 0x80:
        if digits[0] & 0x40:
            raise ConfigError("the tar archive has a negative number")
        value = int.from_bytes(bytes([digits[0] & 0x3F]) + digits[1:], "big")
        if value >= 1 << 63:
            raise ConfigError("the tar archive has a number that is too large")
        return value
    text = digits.split(b"\0")[0].strip(b" ")
    if not all(0x30 <= digit <= 0x37 for digit in text):
        raise ConfigError("the tar archive has a malformed number")
    return int(text or b"0", 8)


def _seconds(digits: bytes) -> int:
    """Return a time of the header; one before 1970 is 0, it tells nothing that a sandbox needs."""
    return 0 if digits[0] & 0xC0 == 0xC0 else _bounded_ns(number(digits))


def _decimal(records: Mapping[bytes, bytes], key: bytes) -> int:
    text = records[key]
    if not text.isdigit() or len(text) > 18:
        raise ConfigError(f"the tar archive has a malformed pax record {key.decode()!r}")
    return int(text)


def _time_ns(text: bytes) -> int:
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    if not whole.isdigit() or len(whole) > 18 or (fraction and not fraction.isdigit()):
        raise ConfigError("the tar archive has a malformed pax record 'mtime'")
    nanoseconds = int((fraction + b"0" * 9)[:9])
    return 0 if text.startswith(b"-") else _bounded_ns(int(whole)) + nanoseconds


def _bounded_ns(seconds: int) -> int:
    return min(seconds, 0x3_7FFF_FFFF) * 1_000_000_000


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def extension(kind: bytes, body: bytes | None) -> dict[bytes, bytes]:
    """Return the pax records that an extension stands for."""
    if body is None:
        raise ConfigError("the tar archive has an extended header that is too long")
    if kind in (_GNU_NAME, _GNU_TARGET):
        return {b"path" if kind == _GNU_NAME else b"linkpath": body.split(b"\0")[0]}
    records = _pax(body)
    if any(key.startswith(b"GNU.sparse") for key in records):
        raise ConfigError("the tar archive has a sparse file: write it without --sparse")
    if kind == PAX_GLOBAL and records.keys() & {b"path", b"linkpath", b"size"}:
        raise ConfigError("the tar archive names all its members alike")
    return records


def _pax(body: bytes) -> dict[bytes, bytes]:
    """Return the records `LENGTH KEY=VALUE\\n` of a pax header."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(body):
        digits, _, _ = body[at : at + 8].partition(b" ")
        if not digits.isdigit():
            raise ConfigError("the tar archive has a malformed pax header")
        end = at + int(digits)
        record = body[at + len(digits) + 1 : end]
        key, equals, value = record.partition(b"=")
        if end > len(body) or not equals or not value.endswith(b"\n"):
            raise ConfigError("the tar archive has a malformed pax header")
        if key in records and not key.startswith(b"GNU.sparse"):
            raise ConfigError(f"the tar archive tells twice of one member: {shown(key)}")
        records[key] = value[:-1]
        at = end
    return records
