"""A tier of no machine at all: files in memory and a few commands, for tests of what drives sandboxes.

It passes the `files`, `life` and `command` checks of `handiwork.sandboxes.selfcheck`; it has no
shell and no isolation, and it streams a command only when the command is over.
"""

import asyncio
import contextlib
import errno
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)

import msgspec

from handiwork.model.code import LANGUAGES, CodeRequest, CodeResult, Language
from handiwork.model.errors import (
    ConflictError,
    GuestError,
    NotFoundError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.model.sandbox import (
    ExecRequest,
    ExecResult,
    FileInfo,
    FileKind,
    ProcessTable,
    SandboxSpec,
    TerminalSize,
)
from handiwork.sandboxes.protocol import (
    Connection,
    OnLog,
    Serve,
    Stream,
    Watch,
    Wish,
    no_log,
    no_tools,
)

PIECE_BYTES = 65_536
Command = Callable[[ExecRequest], ExecResult]
Code = Callable[[CodeRequest, Serve, OnLog], Awaitable[CodeResult]]
ENV = {
    "HOME": "/root",
    "TERM": "dumb",
    "LANG": "C.UTF-8",
    "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
}


class Node(msgspec.Struct):
    """A file's bytes, or None for a directory."""

    mode: int
    data: bytes | None = None


def _done(output: bytes = b"", code: int = 0) -> ExecResult:
    return ExecResult(exit_code=code, stdout=output, stderr=b"")


def _environment(request: ExecRequest) -> ExecResult:
    env = {**ENV, **request.env}
    return _done("".join(f"{name}={value}\n" for name, value in env.items()).encode())


COMMANDS: Mapping[str, Command] = {
    "true": lambda _: _done(),
    "false": lambda _: _done(code=1),
    "echo": lambda request: _done(" ".join(request.argv[1:]).encode() + b"\n"),
    "cat": lambda request: _done(request.stdin or b""),
    "env": _environment,
}


class FakeFiles:
    """A tree in memory; keys are normalised absolute paths, the root is ''."""

    def __init__(self, tree: dict[str, Node], gone: Callable[[], None]) -> None:
        self.tree = tree
        self._gone = gone

    async def read(self, path: str, *, offset: int = 0, limit_bytes: int | None = None) -> bytes:
        """Return bytes of a file."""
        return self._bytes(path, offset, limit_bytes)

    def _bytes(self, path: str, offset: int, limit_bytes: int | None) -> bytes:
        node = self._node(path)
        if node.data is None:
            raise _error(path, errno.EISDIR)
        end = None if limit_bytes is None else offset + limit_bytes
        return node.data[offset:end]

    async def write(
        self, path: str, data: bytes, *, mode: int = 0o644, parents: bool = True
    ) -> None:
        """Write a file whole."""
        self._put(path, data, mode, parents=parents)

    def _put(self, path: str, data: bytes, mode: int, *, parents: bool) -> None:
        key = self._below(path, parents=parents)
        if key in self.tree and self.tree[key].data is None:
            raise _error(path, errno.EISDIR)
        self.tree[key] = Node(mode, bytes(data))

    async def read_stream(
        self, path: str, *, offset: int = 0, limit_bytes: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield bytes of a file."""
        data = self._bytes(path, offset, limit_bytes)
        for at in range(0, len(data), PIECE_BYTES):
            yield data[at : at + PIECE_BYTES]

    async def write_stream(
        self,
        path: str,
        pieces: AsyncIterable[bytes],
        *,
        mode: int = 0o644,
        parents: bool = True,
    ) -> None:
        """Write a file whole, when all of its pieces came."""
        data = b"".join([piece async for piece in pieces])
        self._put(path, data, mode, parents=parents)

    async def list(self, path: str, *, limit: int = 10_000) -> list[FileInfo]:
        """Return the entries of a directory, sorted by name."""
        node, key = self._node(path), _key(path)
        if node.data is not None:
            raise _error(path, errno.ENOTDIR)
        names = sorted(name for name in self.tree if name and name.rpartition("/")[0] == key)
        return [_info(name.rpartition("/")[2], self.tree[name]) for name in names[:limit]]

    async def stat(self, path: str, *, follow: bool = True) -> FileInfo:
        """Tell what a path names."""
        return _info(_key(path).rpartition("/")[2] or "/", self._node(path))

    async def mkdir(self, path: str, *, mode: int = 0o755, parents: bool = True) -> None:
        """Make a directory."""
        self.tree[self._below(path, parents=parents)] = Node(mode)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file or directory."""
        self._node(path)
        key = _key(path)
        below = [name for name in self.tree if name.startswith(key + "/")]
        if below and not recursive:
            raise _error(path, errno.ENOTEMPTY)
        for name in (*below, key):
            del self.tree[name]

    async def move(self, source: str, target: str) -> None:
        """Rename."""
        self._node(source)
        old, new = _key(source), self._below(target, parents=False)
        for name in [name for name in self.tree if name == old or name.startswith(old + "/")]:
            self.tree[new + name[len(old) :]] = self.tree.pop(name)

    async def watch(self, path: str, *, recursive: bool = True) -> Watch:
        """Refuse: nothing changes but by these calls."""
        raise UnsupportedError("the fake tier watches no files")

    async def realpath(self, path: str) -> str:
        """Return the path, normalised: there are no links."""
        return _key(path) or "/"

    def _node(self, path: str) -> Node:
        self._gone()
        key = _key(path)
        self._directory(key.rpartition("/")[0], path)
        if key not in self.tree:
            raise _error(path, errno.ENOENT)
        return self.tree[key]

    def _directory(self, key: str, path: str) -> None:
        while key and key not in self.tree:
            key = key.rpartition("/")[0]
        if self.tree[key].data is not None:
            raise _error(path, errno.ENOTDIR)

    def _below(self, path: str, *, parents: bool) -> str:
        self._gone()
        key = _key(path)
        parent = key.rpartition("/")[0]
        self._directory(parent, path)
        if parent not in self.tree and not parents:
            raise _error(path, errno.ENOENT)
        while parent not in self.tree:
            self.tree[parent] = Node(0o755)
            parent = parent.rpartition("/")[0]
        return key


class FakeProcess:
    """A command that is over already."""

    def __init__(self, result: ExecResult) -> None:
        self._result = result

    @property
    def pid(self) -> int:
        """Any."""
        return 1

    @property
    def has_ended(self) -> bool:
        """It has, from the beginning."""
        return True

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Yield what it wrote."""
        if self._result.stdout:
            yield "stdout", self._result.stdout
        if self._result.stderr:
            yield "stderr", self._result.stderr

    async def write(self, data: bytes) -> None:
        """Take no input."""
        raise UnsupportedError("the fake tier has no standard input of a running command")

    async def close_stdin(self) -> None:
        """Do nothing."""

    async def resize(self, size: TerminalSize) -> None:
        """Do nothing."""

    async def signal(self, number: int) -> None:
        """Do nothing."""

    async def wait(self) -> ExecResult:
        """Return how it ended."""
        return msgspec.structs.replace(self._result, stdout=b"", stderr=b"")

    def close(self) -> None:
        """Do nothing: it is over."""


class FakeKills:
    """No process is ever killed."""

    async def rose(self) -> bool:
        """Say so."""
        return False


class FakeSandbox:
    """One sandbox in memory; `requests` keeps what it was asked to run, `is_frozen` tells of `frozen`."""

    def __init__(
        self, spec: SandboxSpec, tree: dict[str, Node], commands: Mapping[str, Command]
    ) -> None:
        self.spec = spec
        self.requests: list[ExecRequest] = []
        self.commands = dict(commands)
        self.code: Code | None = None
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._files = FakeFiles(tree, self._refuse_when_gone)
        self.is_frozen = False
        self.rests = False
        self._freezing = asyncio.Lock()

    @property
    def id(self) -> str:
        """The id its spec gave."""
        return self.spec.id

    @property
    def files(self) -> FakeFiles:
        """Its files."""
        return self._files

    @property
    def calls(self) -> int:
        """None: no command outlives its call."""
        return 0

    @property
    def languages(self) -> tuple[Language, ...]:
        """All of them where it was given something that runs code."""
        return LANGUAGES if self.code else ()

    async def run_code(
        self, request: CodeRequest, tools: Serve = no_tools, on_log: OnLog = no_log
    ) -> CodeResult:
        """Have `code` run it; UnsupportedError without."""
        self._refuse_when_gone()
        if self.code is None:
            raise UnsupportedError("the fake tier runs no code")
        return await self.code(request, tools, on_log)

    async def exec(self, request: ExecRequest) -> ExecResult:
        """Run one of its commands."""
        self._refuse_when_gone()
        self.requests.append(request)
        if request.argv[0] not in self.commands:
            raise _error(request.argv[0], errno.ENOENT)
        env = {**self.spec.env, **request.env}
        return self.commands[request.argv[0]](msgspec.structs.replace(request, env=env))

    async def start(self, request: ExecRequest, *, stdin: bool = False) -> FakeProcess:
        """Run one of its commands to its end."""
        return FakeProcess(await self.exec(request))

    async def terminal(self, request: ExecRequest, size: TerminalSize) -> FakeProcess:
        """Run one of its commands to its end; there is no terminal to be seen."""
        return FakeProcess(await self.exec(request))

    async def connect(self, port: int) -> Connection:
        """Find nobody who listens: no command of this tier does."""
        self._refuse_when_gone()
        raise _error(f"port {port}", errno.ECONNREFUSED)

    async def ps(self, *, limit: int = 4096) -> ProcessTable:
        """Tell of nothing: no command outlives its call."""
        self._refuse_when_gone()
        return ProcessTable(processes=(), listeners=())

    async def memory_kills(self) -> FakeKills:
        """Tell of none."""
        self._refuse_when_gone()
        return FakeKills()

    @contextlib.asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """Do nothing but be told: no command outlives its call."""
        async with self._freezing:
            self._refuse_when_gone()
            self.is_frozen = True
            try:
                yield
            finally:
                self.is_frozen = False

    @contextlib.asynccontextmanager
    async def resting(self) -> AsyncIterator[None]:
        """Do nothing but be told."""
        self._refuse_when_gone()
        self.rests = True
        try:
            yield
        finally:
            self.rests = False

    async def closed(self) -> str:
        """Wait until it is gone and say why."""
        return await asyncio.shield(self._end)

    def end(self, reason: str = "") -> None:
        """Let it die."""
        if not self._end.done():
            self._end.set_result(reason)

    def _refuse_when_gone(self) -> None:
        if self._end.done():
            raise SandboxUnavailableError(f"the sandbox is gone: {self._end.result()}")


class FakeDriver:
    """The tier; `running` holds its sandboxes, `states` their trees, `commands` what they can run."""

    tier = "namespace"

    def __init__(self, commands: Mapping[str, Command] = COMMANDS) -> None:
        self.commands = commands
        self.running: dict[str, FakeSandbox] = {}
        self.states: dict[str, dict[str, Node]] = {}

    async def create(self, spec: SandboxSpec) -> FakeSandbox:
        """Make a new sandbox."""
        if spec.id in self.states:
            raise ConflictError(f"sandbox {spec.id} has state")
        names = ("", "/workspace", "/tmp", "/home", "/root", "/etc")  # noqa: S108 inside the tree of the fake
        self.states[spec.id] = {name: Node(0o755) for name in names}
        return self._run(spec)

    async def restore(self, spec: SandboxSpec) -> FakeSandbox:
        """Wake one."""
        if spec.id not in self.states:
            raise NotFoundError(f"sandbox {spec.id} has no state")
        if spec.id in self.running:
            raise ConflictError(f"sandbox {spec.id} is running")
        return self._run(spec)

    async def sleep(self, sandbox_id: str) -> None:
        """End it and keep its files."""
        if sandbox_id not in self.states:
            raise NotFoundError(f"sandbox {sandbox_id} has no state")
        self._stop(sandbox_id)

    async def destroy(self, sandbox_id: str) -> None:
        """End it and forget its files."""
        self._stop(sandbox_id)
        self.states.pop(sandbox_id, None)

    def can_fork(self, sandbox_id: str) -> bool:
        """Whether there is such a one."""
        return sandbox_id in self.states

    async def fork(self, source: str, target: str) -> None:
        """Copy a tree."""
        if source not in self.states:
            raise NotFoundError(f"sandbox {source} has no state")
        if target in self.states:
            raise ConflictError(f"sandbox {target} has state")
        tree = self.states[source]
        self.states[target] = {name: msgspec.structs.replace(node) for name, node in tree.items()}

    async def prepare(self, wishes: Sequence[Wish]) -> None:
        """Make ready nothing: there is nothing to make."""

    async def leftovers(self) -> list[str]:
        """Return the ids that have state."""
        return sorted(self.states)

    def _run(self, spec: SandboxSpec) -> FakeSandbox:
        sandbox = FakeSandbox(spec, self.states[spec.id], self.commands)
        self.running[spec.id] = sandbox
        return sandbox

    def _stop(self, sandbox_id: str) -> None:
        running = self.running.pop(sandbox_id, None)
        if running is not None:
            running.end()


def _key(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise _error(path, errno.EINVAL)
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in {"", "."}:
            parts.append(part)
    return "".join(f"/{part}" for part in parts)


def _info(name: str, node: Node) -> FileInfo:
    kind = FileKind.DIRECTORY if node.data is None else FileKind.FILE
    size = len(node.data or b"")
    return FileInfo(name=name, kind=kind, mode=node.mode, size=size, mtime_ns=0, uid=0, gid=0)


def _error(path: str, number: int) -> GuestError:
    return GuestError(f"{path[:200]}: {errno.errorcode[number]}", errno=number)
