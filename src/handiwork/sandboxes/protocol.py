"""The port of every tier: a driver makes sandboxes, a sandbox runs commands and holds files.

`handiwork.sandboxes.selfcheck` is the contract suite that each driver must pass. What a tier lacks
raises UnsupportedError by name.
"""

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from handiwork.model.code import CodeRequest, CodeResult, Language, LogLine
from handiwork.model.errors import ToolFailedError
from handiwork.model.sandbox import (
    ExecRequest,
    ExecResult,
    FileEvent,
    FileInfo,
    Limits,
    ProcessTable,
    SandboxSpec,
    TerminalSize,
)

Stream = Literal["stdout", "stderr"]
Serve = Callable[[str, msgspec.Raw], Awaitable[Any]]
"""Answers a call of guest code: its name, its one argument as JSON; what it raises of ours is told to the code."""
OnLog = Callable[[LogLine], None]
"""Is told of each line that code logs, as it comes."""


async def no_tools(name: str, argument: msgspec.Raw) -> Any:
    """Serve nothing: ToolFailedError."""
    raise ToolFailedError(f"codemode.{name[:80]}: there is no such tool here")


def no_log(line: LogLine) -> None:
    """Keep a line for the result alone."""


class Watch(Protocol):
    """What changes in a directory, from the moment it was made."""

    @property
    def directories(self) -> int:
        """How many directories were watched when it stood."""
        ...

    def events(self) -> AsyncIterator[FileEvent]:
        """Yield what changes, until what is watched is gone. Unread events overflow, and that is told."""
        ...

    def close(self) -> None:
        """Watch no more. No-op when it has ended."""
        ...


class Files(Protocol):
    """Files of one sandbox, by absolute path inside it. Errors of the path are GuestError."""

    async def read(self, path: str, *, offset: int = 0, limit_bytes: int | None = None) -> bytes:
        """Return bytes of a regular file; `limit_bytes` None reads at most 256 MiB, else GuestError."""
        ...

    async def write(
        self, path: str, data: bytes, *, mode: int = 0o644, parents: bool = True
    ) -> None:
        """Write a file whole or not at all (written beside, then renamed into place)."""
        ...

    def read_stream(
        self, path: str, *, offset: int = 0, limit_bytes: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield bytes of a regular file of any size as they are taken; close it when it is left early.

        Of a sandbox 32 streams go on at once, in both directions together; one more waits.
        """
        ...

    async def write_stream(
        self,
        path: str,
        pieces: AsyncIterable[bytes],
        *,
        mode: int = 0o644,
        parents: bool = True,
    ) -> None:
        """Write a file of any size as its pieces come; whole or not at all, as `write`."""
        ...

    async def list(self, path: str, *, limit: int = 10_000) -> list[FileInfo]:
        """Return the entries of a directory, sorted by name."""
        ...

    async def stat(self, path: str, *, follow: bool = True) -> FileInfo:
        """Tell what a path names."""
        ...

    async def mkdir(self, path: str, *, mode: int = 0o755, parents: bool = True) -> None:
        """Make a directory."""
        ...

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, link or directory; links are never followed."""
        ...

    async def move(self, source: str, target: str) -> None:
        """Rename within the sandbox."""
        ...

    async def watch(self, path: str, *, recursive: bool = True) -> Watch:
        """Watch a directory, and with `recursive` those below it, at most 4,096 together.

        At most 16 watches of a sandbox stand; one more is GuestError EAGAIN.
        """
        ...

    async def realpath(self, path: str) -> str:
        """Return the path with every link resolved; the last part may be missing."""
        ...


class Process(Protocol):
    """A command that is running: its output as it comes, its input, its end."""

    @property
    def pid(self) -> int:
        """Its process id inside; it leads a process group of that number."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether it is no call of its sandbox any more; what it wrote may still be read."""
        ...

    def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Yield chunks until both streams end. Unread output stops the process at a bounded buffer."""
        ...

    async def write(self, data: bytes) -> None:
        """Send standard input; waits while the process does not read. Needs `stdin=True`."""
        ...

    async def close_stdin(self) -> None:
        """End standard input."""
        ...

    async def signal(self, number: int) -> None:
        """Signal the whole process tree."""
        ...

    async def wait(self) -> ExecResult:
        """Return how it ended; `stdout` and `stderr` are empty, they went through `output`."""
        ...

    def close(self) -> None:
        """Let go: its tree is killed, what it had still to say is dropped. No-op when it ended.

        Whoever stops reading before the end has to: else it waits to be read, and is in the way.
        """
        ...


class Terminal(Process, Protocol):
    """A command on a terminal: one stream, `stdout`, of raw bytes; `close_stdin` does nothing."""

    async def resize(self, size: TerminalSize) -> None:
        """Give it another size; its foreground is told by SIGWINCH."""
        ...


class Connection(Protocol):
    """A connection to who listens on a port inside: bytes both ways, each side ends its own."""

    async def read(self) -> bytes:
        """Return the next bytes, empty at the end of their side; GuestError when it broke."""
        ...

    async def write(self, data: bytes) -> None:
        """Send; waits while they do not read. GuestError when it broke."""
        ...

    async def finish(self) -> None:
        """End our side; they may still send. No-op when it is ended."""
        ...

    def close(self) -> None:
        """Let go: what has not ended on both sides is reset. No-op when it is gone."""
        ...


class Kills(Protocol):
    """What the memory limit does to processes of a sandbox, from the moment it was made."""

    async def rose(self) -> bool:
        """Say whether it killed one since; False where the tier cannot tell."""
        ...


class Sandbox(Protocol):
    """One running sandbox."""

    @property
    def id(self) -> str:
        """The id its spec gave."""
        ...

    @property
    def files(self) -> Files:
        """Its files."""
        ...

    @property
    def calls(self) -> int:
        """How many are under way: commands, transfers, connections, watches, runs of code."""
        ...

    @property
    def languages(self) -> tuple[Language, ...]:
        """What `run_code` takes. Empty: the tier runs commands; else it runs code, and no command."""
        ...

    async def run_code(
        self, request: CodeRequest, tools: Serve = no_tools, on_log: OnLog = no_log
    ) -> CodeResult:
        """Run code to its end, `tools` answers `codemode.NAME(...)` of it. UnsupportedError, or GuestError.

        Failing and meeting a limit are results. SandboxUnavailableError when it failed for our fault.
        """
        ...

    async def exec(self, request: ExecRequest) -> ExecResult:
        """Run a command to its end; GuestError when it cannot start. Cancelling kills its tree."""
        ...

    async def start(self, request: ExecRequest, *, stdin: bool = False) -> Process:
        """Start a command and return when it runs, else GuestError; `request.stdin` must be None."""
        ...

    async def terminal(self, request: ExecRequest, size: TerminalSize) -> Terminal:
        """Start a command on a terminal of its own; as `start` else."""
        ...

    async def connect(self, port: int) -> Connection:
        """Connect to loopback inside, and to nothing else; GuestError when nobody listens there.

        At most 64 connections are open; one more is GuestError EAGAIN.
        """
        ...

    async def ps(self, *, limit: int = 4096) -> ProcessTable:
        """Tell what runs inside, at most so many processes, and where it listens."""
        ...

    async def memory_kills(self) -> Kills:
        """Return what tells whether the memory limit kills a process of the sandbox from now on."""
        ...

    def frozen(self) -> AbstractAsyncContextManager[None]:
        """Hold every guest process still, for a copy of the files; one at a time, others wait.

        Calls of the sandbox may wait until it is over, so that who copies reads below the port.
        Those who were stopped before stay stopped after. GuestError, or SandboxUnavailableError,
        when somebody could not be held, on entry or found at the end: the copy is worth nothing.
        """
        ...

    def resting(self) -> AbstractAsyncContextManager[None]:
        """Hold every guest process still for long. UnsupportedError where only the agent could.

        Meanwhile `frozen` is entered at once; the end waits for whoever is in it.
        """
        ...

    async def closed(self) -> str:
        """Wait until the sandbox is gone and say why (empty: it was closed by us)."""
        ...


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the next sandboxes will be like, and how many are to stand ready before they are wanted."""

    image: str
    limits: Limits
    sandboxes: int = 0


class Driver(Protocol):
    """The code of one tier."""

    @property
    def tier(self) -> str:
        """One of `model.sandbox.TIERS`."""
        ...

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """Make a new sandbox. ConflictError when state of this id exists; SandboxUnavailableError else."""
        ...

    async def restore(self, spec: SandboxSpec) -> Sandbox:
        """Wake one from the state that `sleep` left. NotFoundError when there is none."""
        ...

    async def sleep(self, sandbox_id: str) -> None:
        """End its processes and keep its files. No-op when it sleeps; NotFoundError without state."""
        ...

    async def destroy(self, sandbox_id: str) -> None:
        """End its processes and delete all it left on the host. No-op when there is nothing."""
        ...

    def can_fork(self, sandbox_id: str) -> bool:
        """Whether `fork` can copy this one's files, running or not. Where not, a snapshot may do."""
        ...

    async def fork(self, source: str, target: str) -> None:
        """Make a sandbox that sleeps, with the files that another has now and nothing else of it.

        A source that runs is frozen meanwhile. All of it or nothing: ConflictError when state of the
        target's id exists, NotFoundError without a source, UnsupportedError where `can_fork` says no.
        """
        ...

    async def prepare(self, wishes: Sequence[Wish]) -> None:
        """Make ready ahead of time what is wished, as far as this tier can; let go of what else is.

        Called again whenever a sandbox was made, and with no wish at the end.
        """
        ...

    async def leftovers(self) -> list[str]:
        """Return the ids of sandboxes that have state on this host, running or not."""
        ...


class Inside(Protocol):
    """What the namespace launcher runs in place of the agent alone: a kernel, which makes a tier."""

    @property
    def tier(self) -> str:
        """One of `model.sandbox.TIERS`."""
        ...

    async def ready(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Prove once that it works, where `attempt` makes and ends a sandbox; else UnsupportedError."""
        ...

    def launch_options(
        self, spec: SandboxSpec, state: Path, *, ranged: bool, ahead: bool
    ) -> list[str]:
        """Return what the launcher is told besides; may write files into the state's directory.

        `ranged`: the sandbox has 65,536 ids, else one. `ahead`: it waits for a claim before it
        hardens and serves.
        """
        ...

    def around(self, limits: Limits) -> Limits:
        """Return the limits for the control group around sandbox and kernel together."""
        ...

    def protections(self) -> Mapping[str, bool]:
        """Return what holds besides, or does not here, by name."""
        ...
