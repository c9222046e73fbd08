"""A sandbox: what is asked for, what it is doing, what a command in it gave."""

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

import msgspec

from handiwork.model.errors import ConfigError
from handiwork.model.ids import DEFAULT_TENANT

TIERS = ("namespace", "gvisor", "microvm", "isolate")
"""Every tier by name; which of them work on a host is for `doctor` to prove."""


_STRENGTH = {"isolate": 0, "namespace": 0, "gvisor": 1, "microvm": 2}
"""By what stands between a guest and the host's kernel: filters; another kernel; a machine."""


def is_weaker(tier: str, minimum: str) -> bool:
    """Say whether a tier is weaker than the one that is the least allowed; "" allows every tier."""
    return bool(minimum) and _STRENGTH[tier] < _STRENGTH[minimum]


class SandboxState(enum.Enum):
    """`STARTING` and `RUNNING` have processes; `SLEEPING` has only files; `GONE` has nothing."""

    STARTING = "starting"
    RUNNING = "running"
    SLEEPING = "sleeping"
    FAILED = "failed"
    GONE = "gone"


DIED = "it died: "
"""The reason of a sandbox that sleeps because it died begins so; other reasons are no death."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one sandbox may use. Zero is not a value: every limit is one, but None is none.

    `disk_mib` bounds what it writes below its root, where the driver's `disk_limit` protection holds;
    where it has `disk_watch` instead, a sandbox is stopped when it is found to be over it. The rates
    hold where it has `disk_read_rate` and `disk_write_rate`, and are refused elsewhere.
    """

    memory_mib: int = 2048
    disk_mib: int = 16_384
    pids: int = 512
    cpu_percent: int = 200
    tmp_mib: int = 512
    open_files: int = 4096
    file_size_mib: int = 8192
    disk_read_mib_per_second: int | None = None
    disk_write_mib_per_second: int | None = None

    def disk_rates(self) -> Mapping[str, int]:
        """Return what may be read of its disk, and written to it, in a second, as far as it is limited."""
        rates = {"read": self.disk_read_mib_per_second, "write": self.disk_write_mib_per_second}
        return {name: rate << 20 for name, rate in rates.items() if rate is not None}


SIZES: Mapping[str, Limits] = {
    "small": Limits(memory_mib=1024, disk_mib=4096, pids=256, cpu_percent=100, tmp_mib=256),
    "standard": Limits(),
    "large": Limits(memory_mib=8192, disk_mib=65_536, pids=2048, cpu_percent=400, tmp_mib=2048),
}
"""Limits by a name; no size has a ceiling of time."""


def limits_of(size: str, exact: Limits | None) -> Limits | None:
    """Return the limits that are meant, None where none are; ConfigError for two or for no size."""
    if size and exact is not None:
        raise ConfigError("give a size, or limits of its own, not both")
    if size and size not in SIZES:
        raise ConfigError(f"size: {size[:40]!r} is none; use one of {', '.join(SIZES)}")
    if exact is not None:
        _check_limits(exact)
    return SIZES[size] if size else exact


def _check_limits(limits: Limits) -> None:
    for name, value in msgspec.structs.asdict(limits).items():
        if value is not None and not 1 <= value <= 1 << 24:
            raise ConfigError(f"limits.{name} = {value}: use 1 to {1 << 24}")


class SandboxExit(msgspec.Struct, frozen=True, kw_only=True):
    """The sandbox's only way out: its egress socket, and the CA its clients must trust."""

    socket_path: str
    ca_certificate: str


class SandboxSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver needs to make one sandbox. `exit` absent: nothing leaves."""

    id: str
    image: str = "host"
    limits: Limits = msgspec.field(default_factory=Limits)
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    exit: SandboxExit | None = None
    hostname: str = "sandbox"


class ExecRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One command. `output_limit_bytes` is kept of stdout and of stderr each; the rest is dropped.

    0 stands for no limit, and only for a started command, whose output is read as it comes.
    """

    argv: tuple[str, ...]
    cwd: str = "/workspace"
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    stdin: bytes | None = None
    user: str = "root"
    timeout_seconds: float | None = 120.0
    output_limit_bytes: int = 8 * 1024 * 1024
    merge_stderr: bool = False


MAX_TERMINAL_CELLS = 1000
"""Of a row or column; programs allocate by it."""


class TerminalSize(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many characters a terminal shows."""

    columns: Annotated[int, msgspec.Meta(ge=1, le=MAX_TERMINAL_CELLS)] = 80
    rows: Annotated[int, msgspec.Meta(ge=1, le=MAX_TERMINAL_CELLS)] = 24


OUT_OF_MEMORY = "out of memory: the sandbox's memory limit killed a process of it meanwhile"
"""What is said of a command whose result has `out_of_memory`."""


class ExecResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a command ended; `exit_code` is 128+n after signal n.

    `out_of_memory`: it failed, and meanwhile the memory limit killed a process of its sandbox, which
    need not be its own.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    truncated: bool = False
    out_of_memory: bool = False


class FileKind(enum.Enum):
    """What a path names; a link is told as a link unless it is followed."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    OTHER = "other"


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the guest's file tree. `mtime_ns` counts from the epoch."""

    name: str
    kind: FileKind
    mode: int
    size: int
    mtime_ns: int
    uid: int
    gid: int


class FileChange(enum.Enum):
    """What became of a path; of `OVERFLOW` it is not known: look again at all of it.

    `UNWATCHED`: a directory too deep, or one too many, of which nothing will be told.
    """

    CREATED = "created"
    CHANGED = "changed"
    REMOVED = "removed"
    MOVED_AWAY = "moved_away"
    MOVED_HERE = "moved_here"
    ATTRIBUTES = "attributes"
    OVERFLOW = "overflow"
    UNWATCHED = "unwatched"


class FileEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One change below a watched directory; `path` is relative to it, "" for itself."""

    change: FileChange
    path: str
    directory: bool = False


class TreeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive of files held that came out of a sandbox, or went in.

    `bytes` are of the archive. `skipped` names at most a hundred of the `skipped_count` entries that
    were left out, devices and FIFOs; `notes` is what the sandbox's own tar had to say.
    """

    entries: int
    bytes: int
    skipped: tuple[str, ...] = ()
    skipped_count: int = 0
    notes: str = ""


class ProcessInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One process inside; `state` is the kernel's letter, `memory_kib` what is resident.

    All processes that one command started bear one `tree`; 0 is none of ours.
    """

    pid: int
    parent: int
    uid: int
    state: str
    threads: int
    tree: int
    cpu_seconds: float
    memory_kib: int
    age_seconds: float
    command: str


class ListenerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A socket inside that listens for TCP; `pid` 0 where whose it is cannot be told."""

    pid: int
    uid: int
    address: str
    port: int


class ProcessTable(msgspec.Struct, frozen=True, kw_only=True):
    """What runs in a sandbox, by pid, and where it listens."""

    processes: tuple[ProcessInfo, ...]
    listeners: tuple[ListenerInfo, ...]


class SandboxRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the store keeps of a sandbox; `session_id` is empty for one made over the API.

    `limits` absent: the operator's default of the day. `attached` are the paths of what its session
    brought along, which is in no snapshot. `origin`: the snapshot
    (`ID/NUMBER`) or the sandbox (`ID`) that it began as.
    """

    id: str
    tenant: str = DEFAULT_TENANT
    session_id: str = ""
    agent_id: str = ""
    tier: str
    image: str
    policy: str = ""
    state: SandboxState
    reason: str = ""
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    metadata: Mapping[str, str] = msgspec.field(default_factory=dict)
    limits: Limits | None = None
    attached: tuple[str, ...] = ()
    origin: str = ""
    ca_generation: int = 1
    created_at: datetime
    updated_at: datetime
