"""The frames of the channel to a guest agent: bytes to values and back. Pure.

`guest/PROTOCOL.md` is the description, `guest/corpus/` the examples that this codec and the agent's
own must both pass. Strings of the guest stay bytes here: a path need not be text.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import msgspec

VERSION = 1
HEAD_BYTES = 12
PAYLOAD_BYTES = 65_536
WINDOW_BYTES = 262_144
"""What each side may send of a request's streams before it needs credit."""
MAX_REQUESTS = 256

EXEC_STDIN, EXEC_MERGE_STDERR = 1, 2
WRITE_PARENTS = 1
STAT_FOLLOW = 1
MKDIR_PARENTS = 1
REMOVE_RECURSIVE = 1
WATCH_RECURSIVE = 1
EXIT_TIMED_OUT, EXIT_STDOUT_CUT, EXIT_STDERR_CUT, EXIT_OUT_OF_MEMORY = 1, 2, 4, 8

_HEAD = struct.Struct("<IIB3s")
_LENGTH = struct.Struct("<I")
_ZEROS = b"\0\0\0"


class FrameError(ValueError):
    """Bytes that are no frame, or a value that no frame can carry."""


class Frame(msgspec.Struct, frozen=True):
    """One frame. `KIND` is its number; `FIXED` packs its leading numbers, `TAIL` tells the rest.

    `ENDING` packs the numbers, if any, that follow the tail.

    A frame with an `ITEM` holds at least one of them, each packed as FIXED and a string.

    A letter of `TAIL` is a field: `s` a string, `l` a list of strings, `r` all remaining bytes.
    """

    KIND: ClassVar[int]
    FIXED: ClassVar[str] = ""
    TAIL: ClassVar[str] = ""
    ENDING: ClassVar[str] = ""
    ITEM: ClassVar[type[msgspec.Struct] | None] = None


class Exec(Frame, frozen=True):
    """Run a command; `output_limit` 0 and `timeout_ms` 0 mean none."""

    KIND, FIXED, TAIL = 1, "IIQII", "sll"
    flags: int
    timeout_ms: int
    output_limit: int
    uid: int
    gid: int
    cwd: bytes
    argv: tuple[bytes, ...]
    env: tuple[bytes, ...]


class Stdin(Frame, frozen=True):
    """Bytes of standard input; empty ends it."""

    KIND, TAIL = 2, "r"
    data: bytes


class Signal(Frame, frozen=True):
    """Signal the whole tree of a command."""

    KIND, FIXED = 3, "i"
    signal: int


class Credit(Frame, frozen=True):
    """The agent may send as many bytes more."""

    KIND, FIXED = 4, "I"
    amount: int


class Read(Frame, frozen=True):
    """Read a regular file."""

    KIND, FIXED, TAIL = 5, "QQ", "s"
    offset: int
    limit: int
    path: bytes


class Write(Frame, frozen=True):
    """Write a file; its bytes follow as Data, an empty one ends them."""

    KIND, FIXED, TAIL = 6, "IIII", "s"
    mode: int
    flags: int
    uid: int
    gid: int
    path: bytes


class Data(Frame, frozen=True):
    """Bytes of a Write."""

    KIND, TAIL = 7, "r"
    data: bytes


class Stat(Frame, frozen=True):
    """Tell what a path names."""

    KIND, FIXED, TAIL = 8, "I", "s"
    flags: int
    path: bytes


class List(Frame, frozen=True):
    """List a directory."""

    KIND, FIXED, TAIL = 9, "I", "s"
    limit: int
    path: bytes


class Mkdir(Frame, frozen=True):
    """Make a directory."""

    KIND, FIXED, TAIL = 10, "IIII", "s"
    mode: int
    flags: int
    uid: int
    gid: int
    path: bytes


class Remove(Frame, frozen=True):
    """Remove what a path names."""

    KIND, FIXED, TAIL = 11, "I", "s"
    flags: int
    path: bytes


class Move(Frame, frozen=True):
    """Rename."""

    KIND, TAIL = 12, "ss"
    source: bytes
    target: bytes


class Realpath(Frame, frozen=True):
    """Resolve every link of a path."""

    KIND, TAIL = 13, "s"
    path: bytes


class Ping(Frame, frozen=True):
    """Ask for a sign of life."""

    KIND = 14


class Cancel(Frame, frozen=True):
    """End a Read, List, Write, Connect or Freeze."""

    KIND = 15


class Freeze(Frame, frozen=True):
    """Stop every guest process until Cancel."""

    KIND = 16


class Terminal(Frame, frozen=True):
    """Run a command on a terminal of its own: an Exec and a size."""

    KIND, FIXED, TAIL, ENDING = 17, "IIQII", "sll", "II"
    flags: int
    timeout_ms: int
    output_limit: int
    uid: int
    gid: int
    cwd: bytes
    argv: tuple[bytes, ...]
    env: tuple[bytes, ...]
    columns: int
    rows: int


class Resize(Frame, frozen=True):
    """Give a terminal another size."""

    KIND, FIXED = 18, "II"
    columns: int
    rows: int


class Connect(Frame, frozen=True):
    """Connect to a port inside; `family` 4, 6, or 0 for the first that answers."""

    KIND, FIXED = 19, "II"
    family: int
    port: int


class Processes(Frame, frozen=True):
    """Tell what runs; `limit` 0 for all."""

    KIND, FIXED = 20, "I"
    limit: int


class Watch(Frame, frozen=True):
    """Tell what changes in a directory, or below it, until Cancel."""

    KIND, FIXED, TAIL = 21, "I", "s"
    flags: int
    path: bytes


class Kills(Frame, frozen=True):
    """Ask how many processes the memory limit has killed."""

    KIND = 22


class Hello(Frame, frozen=True):
    """The agent serves; its first frame."""

    KIND, FIXED = 64, "II"
    version: int
    pid: int


class Started(Frame, frozen=True):
    """A command runs, under this pid inside."""

    KIND, FIXED = 65, "I"
    pid: int


class Stdout(Frame, frozen=True):
    """Bytes of a command's standard output."""

    KIND, TAIL = 66, "r"
    data: bytes


class Stderr(Frame, frozen=True):
    """Bytes of a command's standard error."""

    KIND, TAIL = 67, "r"
    data: bytes


class Exit(Frame, frozen=True):
    """How a command ended."""

    KIND, FIXED = 68, "iIQQQ"
    code: int
    flags: int
    user_us: int
    system_us: int
    max_rss_kib: int


class Grant(Frame, frozen=True):
    """Credit from the agent: the host may send as many bytes more."""

    KIND, FIXED = 69, "I"
    amount: int


class Body(Frame, frozen=True):
    """Bytes of a Read or Connect."""

    KIND, TAIL = 70, "r"
    data: bytes


class End(Frame, frozen=True):
    """A Read or List is complete: bytes or entries in all."""

    KIND, FIXED = 71, "Q"
    total: int


class Info(Frame, frozen=True):
    """What a path names; `kind` 1 file, 2 directory, 3 link, 4 other."""

    KIND, FIXED = 72, "IIQqII"
    kind: int
    mode: int
    size: int
    mtime_ns: int
    uid: int
    gid: int


class Entry(msgspec.Struct, frozen=True):
    """One entry of a directory: the fields of Info, and its name."""

    kind: int
    mode: int
    size: int
    mtime_ns: int
    uid: int
    gid: int
    name: bytes


class Entries(Frame, frozen=True):
    """At least one entry of a List."""

    KIND, FIXED, ITEM = 73, "IIQqII", Entry
    items: tuple[Entry, ...]


class Name(Frame, frozen=True):
    """A resolved path."""

    KIND, TAIL = 74, "s"
    name: bytes


class Ok(Frame, frozen=True):
    """Done."""

    KIND = 75


class Failed(Frame, frozen=True):
    """A request failed, with Linux's error number."""

    KIND, FIXED, TAIL = 76, "I", "s"
    errno: int
    what: bytes


class Frozen(Frame, frozen=True):
    """No guest process runs; so many stand still."""

    KIND, FIXED = 77, "I"
    processes: int


class Connected(Frame, frozen=True):
    """A connection stands, over this family."""

    KIND, FIXED = 78, "I"
    family: int


class Process(msgspec.Struct, frozen=True):
    """One process; `command` is its arguments, each ended by NUL."""

    pid: int
    parent: int
    uid: int
    threads: int
    state: int
    tree: int
    cpu_us: int
    rss_kib: int
    age_ms: int
    command: bytes


class Running(Frame, frozen=True):
    """At least one process of Processes."""

    KIND, FIXED, ITEM = 80, "IIIIIQQQQ", Process
    items: tuple[Process, ...]


class Listener(msgspec.Struct, frozen=True):
    """A socket that listens; `pid` 0: whose it is may not be looked at."""

    pid: int
    uid: int
    family: int
    port: int
    address: bytes


class Listeners(Frame, frozen=True):
    """At least one socket of Processes."""

    KIND, FIXED, ITEM = 81, "IIII", Listener
    items: tuple[Listener, ...]


class Watched(Frame, frozen=True):
    """So many directories are watched: from now on every change is told."""

    KIND, FIXED = 82, "I"
    directories: int


class Event(msgspec.Struct, frozen=True):
    """One change; `path` is below what is watched."""

    what: int
    directory: int
    path: bytes


class Events(Frame, frozen=True):
    """At least one change of a Watch."""

    KIND, FIXED, ITEM = 83, "II", Event
    items: tuple[Event, ...]


class Finished(Frame, frozen=True):
    """The side inside of a connection has ended."""

    KIND = 79


TO_AGENT: tuple[type[Frame], ...] = (
    *(Exec, Stdin, Signal, Credit, Read, Write, Data, Stat, List),
    *(Mkdir, Remove, Move, Realpath, Ping, Cancel, Freeze, Terminal, Resize),
    *(Connect, Processes, Watch, Kills),
)
TO_HOST: tuple[type[Frame], ...] = (
    *(Hello, Started, Stdout, Stderr, Exit, Grant, Body, End),
    *(Info, Entries, Name, Ok, Failed, Frozen),
    *(Connected, Finished, Running, Listeners, Watched, Events),
)

STREAMS = (Stdout, Stderr, Body)


def event_bytes(event: Event) -> int:
    """Return what an event costs of its request's credit."""
    return 12 + len(event.path)


def streamed(frame: Frame) -> int | None:
    """Return what a frame costs of its request's credit; None for one that is no part of a stream."""
    if isinstance(frame, STREAMS):
        return len(frame.data)
    return sum(map(event_bytes, frame.items)) if isinstance(frame, Events) else None


_FIXED = {kind: struct.Struct("<" + kind.FIXED) for kind in TO_AGENT + TO_HOST}
_ENDING = {kind: struct.Struct("<" + kind.ENDING) for kind in TO_AGENT + TO_HOST if kind.ENDING}


def _strings(values: Sequence[bytes]) -> bytes:
    return b"".join([_LENGTH.pack(len(values)), *(_LENGTH.pack(len(v)) + v for v in values)])


_PUT = {"s": lambda value: _LENGTH.pack(len(value)) + value, "l": _strings, "r": bytes}


def _payload(frame: Frame) -> bytes:
    values = msgspec.structs.astuple(frame)
    numbers = len(frame.FIXED)
    if frame.ITEM is not None:
        items = [msgspec.structs.astuple(item) for item in values[0]]
        layout = _FIXED[type(frame)]
        return b"".join(layout.pack(*i[:numbers]) + _PUT["s"](i[numbers]) for i in items)
    parts = [_FIXED[type(frame)].pack(*values[:numbers])]
    tail = values[numbers : numbers + len(frame.TAIL)]
    parts += [_PUT[code](value) for code, value in zip(frame.TAIL, tail, strict=True)]
    if frame.ENDING:
        parts.append(_ENDING[type(frame)].pack(*values[numbers + len(tail) :]))
    return b"".join(parts)


def encode(request_id: int, frame: Frame) -> bytes:
    """Return the frame's bytes; FrameError when a value does not fit."""
    try:
        payload = _payload(frame)
        head = _HEAD.pack(len(payload), request_id, frame.KIND, _ZEROS)
    except struct.error as error:
        raise FrameError(f"a number of a {type(frame).__name__} frame is out of range") from error
    if len(payload) > PAYLOAD_BYTES:
        raise FrameError(
            f"a {type(frame).__name__} frame of {len(payload)} bytes is over the limit"
            f" of {PAYLOAD_BYTES}"
        )
    return head + payload


class _Reader:
    """Takes fields off a payload, never more than it holds."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.at = 0

    def numbers(self, layout: struct.Struct) -> tuple[int, ...]:
        start = self._skip(layout.size)
        return layout.unpack_from(self.payload, start)

    def string(self) -> bytes:
        (length,) = self.numbers(_LENGTH)
        start = self._skip(length)
        return self.payload[start : self.at]

    def strings(self) -> tuple[bytes, ...]:
        (count,) = self.numbers(_LENGTH)
        if count > (len(self.payload) - self.at) // _LENGTH.size:
            raise FrameError("a list of a frame is longer than the frame")
        return tuple([self.string() for _ in range(count)])

    def rest(self) -> bytes:
        start = self._skip(len(self.payload) - self.at)
        return self.payload[start:]

    def field(self, code: str) -> Any:
        if code == "s":
            return self.string()
        return self.strings() if code == "l" else self.rest()

    def _skip(self, size: int) -> int:
        start = self.at
        if size > len(self.payload) - start:
            raise FrameError("a field of a frame ends past the frame")
        self.at = start + size
        return start


def _items(kind: type[Frame], item: type[msgspec.Struct], payload: bytes) -> Frame:
    reader = _Reader(payload)
    found: list[msgspec.Struct] = []
    while not found or reader.at < len(payload):
        values: tuple[Any, ...] = (*reader.numbers(_FIXED[kind]), reader.string())
        found.append(item(*values))
    return kind(tuple(found))


def _decode(kind: type[Frame], payload: bytes) -> Frame:
    if kind.ITEM is not None:
        return _items(kind, kind.ITEM, payload)
    if kind.TAIL == "r":
        return kind(payload)
    reader = _Reader(payload)
    values: list[Any] = list(reader.numbers(_FIXED[kind])) if kind.FIXED else []
    values += [reader.field(code) for code in kind.TAIL]
    if kind.ENDING:
        values += reader.numbers(_ENDING[kind])
    if reader.at != len(payload):
        raise FrameError(f"bytes are left over in a {kind.__name__} frame")
    return kind(*values)


class Decoder:
    """Splits a stream into frames of one direction, as its bytes come; holds less than one frame."""

    def __init__(self, kinds: Sequence[type[Frame]]) -> None:
        self._kinds = {kind.KIND: kind for kind in kinds}
        self._rest = bytearray()
        self._need = HEAD_BYTES

    @property
    def held(self) -> int:
        """Bytes of an unfinished frame."""
        return len(self._rest)

    def feed(self, data: bytes) -> Iterator[tuple[int, Frame]]:
        """Yield (request id, frame) for each frame that is complete; FrameError ends the stream.

        A bad head is refused before its payload is waited for.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need:
                return
            data = bytes(self._rest)
        at, self._need = 0, HEAD_BYTES
        while len(data) - at >= HEAD_BYTES:
            size, request_id, kind = self._head(data, at)
            end = at + HEAD_BYTES + size
            if len(data) < end:
                self._need = HEAD_BYTES + size
                break
            yield request_id, _decode(kind, data[at + HEAD_BYTES : end])
            at = end
        self._rest = bytearray(data[at:])

    def _head(self, data: bytes, at: int) -> tuple[int, int, type[Frame]]:
        size, request_id, number, zeros = _HEAD.unpack_from(data, at)
        kind = self._kinds.get(number)
        if kind is None or zeros != _ZEROS or size > PAYLOAD_BYTES:
            raise FrameError(f"no frame starts with kind {number} and {size} bytes")
        return size, request_id, kind
