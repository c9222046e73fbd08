"""The audit on disk: one JSON object a line, each bound to the one before by a hash.

Each writer has its own chain of segment files, `NAME-00000001.jsonl` and on; the first line of a
segment follows the last one of the segment before. A line is `{"prev":…,"hash":…,"record":…}`
with hash = SHA-256 of prev and the record's bytes, and is written in exactly this form.
"""

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from handiwork.model.audit import AuditRecord
from handiwork.model.errors import ConfigError
from handiwork.model.ids import check_name

GENESIS = "0" * 64
SEGMENT_BYTES = 64 * 1024 * 1024
READ_BYTES = 8 * 1024 * 1024
MAX_LINE_BYTES = 256 * 1024
_BUFFER_BYTES = 256 * 1024

_SEGMENT = re.compile(r"([a-z0-9][a-z0-9_.-]*)-([0-9]{8})\.jsonl")
_LINE = re.compile(rb'\{"prev":"([0-9a-f]{64})","hash":"([0-9a-f]{64})","record":(\{.*\})\}')
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AuditRecord)


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something wrong with a chain; `line` counts from 1, 0 where it is the whole segment."""

    segment: str
    line: int
    message: str


def _chained(prev: str, record: bytes) -> str:
    return hashlib.sha256(prev.encode() + record).hexdigest()


def _segments(directory: Path, name: str | None = None) -> list[tuple[str, int, Path]]:
    """Return (chain, number, path) of each segment, in order."""
    found = []
    for path in directory.iterdir():
        parts = _SEGMENT.fullmatch(path.name)
        if parts and name in (None, parts[1]):
            found.append((parts[1], int(parts[2]), path))
    return sorted(found)


class AuditWriter:
    """Appends to one chain. The owner calls `flush` at least every 100 ms, and `close`.

    OSError from any call means that the record may not be on disk: stop letting traffic through.
    A line torn by a crash is cut when the chain is taken up again; `cut_bytes` says how much.
    """

    def __init__(self, directory: Path, name: str, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        check_name("audit chain", name)
        directory.mkdir(mode=0o700, exist_ok=True)
        self._directory, self._name, self._limit = directory, name, segment_bytes
        self._buffer: list[bytes] = []
        self._buffered = 0
        self.cut_bytes = 0
        existing = _segments(directory, name)
        self._number = existing[-1][1] if existing else 1
        self._descriptor, self._size = self._open()
        try:
            self._prev = self._take_up(existing)
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    def path(self) -> Path:
        """The segment that is being written."""
        return self._directory / f"{self._name}-{self._number:08d}.jsonl"

    def append(self, record: AuditRecord) -> None:
        """Add a record to the chain; it is on disk after the next flush."""
        raw = _encoder.encode(record)
        if len(raw) > MAX_LINE_BYTES - 256:
            raise ValueError("an audit record is larger than a line may be")
        digest = _chained(self._prev, raw)
        line = b'{"prev":"%b","hash":"%b","record":%b}\n' % (
            self._prev.encode(),
            digest.encode(),
            raw,
        )
        self._buffer.append(line)
        self._buffered += len(line)
        self._prev = digest
        if self._buffered >= _BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand what is buffered to the kernel, and begin a new segment when this one is full."""
        if not self._buffer:
            return
        pending = memoryview(b"".join(self._buffer))
        self._buffer = []
        try:
            while pending:
                written = os.write(self._descriptor, pending)
                self._size += written
                pending = pending[written:]
        finally:
            # What a full disk did not take is tried again, from exactly where it stopped.
            self._buffer = [bytes(pending)] if pending else []
            self._buffered = len(pending)
        if self._size >= self._limit:
            self._rotate()

    def close(self) -> None:
        """Flush, force to disk and close."""
        try:
            self.flush()
            os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)

    def _rotate(self) -> None:
        os.fsync(self._descriptor)
        full = self._descriptor
        self._number += 1
        self._descriptor, self._size = self._open()
        os.close(full)

    def _open(self) -> tuple[int, int]:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigError(f"{self.path} is written by another process: stop that one") from None
        return descriptor, os.fstat(descriptor).st_size

    def _take_up(self, existing: list[tuple[str, int, Path]]) -> str:
        """Cut a torn line and return the hash that the chain stands at."""
        tail = os.pread(self._descriptor, MAX_LINE_BYTES, max(self._size - MAX_LINE_BYTES, 0))
        torn = len(tail) - (tail.rfind(b"\n") + 1)
        if torn:
            self._size -= torn
            self.cut_bytes = torn
            os.ftruncate(self._descriptor, self._size)
            tail = tail[: len(tail) - torn]
        if self._size:
            return _last_hash(self.path, tail)
        if len(existing) < 2:
            return GENESIS
        before = existing[-2][2]
        with before.open("rb") as file:
            file.seek(max(before.stat().st_size - MAX_LINE_BYTES, 0))
            return _last_hash(before, file.read(MAX_LINE_BYTES))


def _last_hash(path: Path, tail: bytes) -> str:
    line = tail.removesuffix(b"\n").rpartition(b"\n")[2]
    found = _LINE.fullmatch(line)
    if found is None or _chained(found[1].decode(), found[3]) != found[2].decode():
        raise ConfigError(
            f"the end of {path} is damaged: run `handiwork audit verify`, then move the chain away"
        )
    return found[2].decode()


def read_segment(path: Path, position: int) -> tuple[list[AuditRecord], int]:
    """Return the complete records from a byte position on, and the position after them.

    Reads at most 8 MiB a call. OSError (EBADMSG) where the segment is shorter than the position
    or a line does not carry the hash of its content.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < position:
            raise OSError(
                errno.EBADMSG, "audit segment was cut: run `handiwork audit verify`", path
            )
        file.seek(position)
        data = file.read(READ_BYTES)
    data = data[: data.rfind(b"\n") + 1]
    records = []
    for line in data.splitlines():
        found = _LINE.fullmatch(line)
        if found is None or _chained(found[1].decode(), found[3]) != found[2].decode():
            message = "audit segment was changed: run `handiwork audit verify`"
            raise OSError(errno.EBADMSG, message, path)
        records.append(_decoder.decode(found[3]))
    return records, position + len(data)


def verify(directory: Path) -> list[Problem]:
    """Return every break in every chain of a directory: changed, reordered, cut or missing lines.

    Lines cut off at the very end of a chain cannot be seen from the chain alone.
    """
    problems: list[Problem] = []
    state: dict[str, tuple[int, str]] = {}
    for chain, number, path in _segments(directory):
        last_number, prev = state.get(chain, (0, GENESIS))
        if number != last_number + 1:
            message = f"segments {last_number + 1} to {number - 1} of the chain are missing"
            problems.append(Problem(segment=path.name, line=0, message=message))
            prev = ""
        found, prev = _verify_segment(path, prev)
        problems.extend(found)
        state[chain] = (number, prev)
    return problems


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            yield number, line


def _verify_segment(path: Path, prev: str) -> tuple[list[Problem], str]:
    """Return the problems of one segment and its last hash; an empty `prev` is not compared."""
    problems = []
    for number, line in _lines(path):
        message = ""
        found = _LINE.fullmatch(line.removesuffix(b"\n"))
        if found is None or not line.endswith(b"\n"):
            message = "is not a complete line"
        elif _chained(found[1].decode(), found[3]) != found[2].decode():
            message = "was changed: its hash does not fit its content"
        elif prev and found[1].decode() != prev:
            message = "does not follow the line before it"
        if message:
            problems.append(Problem(segment=path.name, line=number, message=message))
        prev = found[2].decode() if found else ""
    return problems, prev
