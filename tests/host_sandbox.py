"""A sandbox without walls for tests of what runs in one: host programs, a directory as /workspace."""

import asyncio
import contextlib
import os
import shutil
import signal as signals
import stat
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from handiwork.model.code import CodeRequest, CodeResult
from handiwork.model.errors import ConflictError, GuestError, NotFoundError, UnsupportedError
from handiwork.model.sandbox import ExecRequest, ExecResult, FileInfo, FileKind, SandboxSpec
from handiwork.sandboxes.protocol import OnLog, Serve, Stream, Wish, no_log, no_tools


class HostFiles:
    def __init__(self, root: Path) -> None:
        self.root = root

    def _at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    async def read(self, path: str, *, offset: int = 0, limit_bytes: int | None = None) -> bytes:
        try:
            with self._at(path).open("rb") as file:
                file.seek(offset)
                return file.read(limit_bytes)
        except OSError as error:
            raise _guest(error) from None

    async def write(
        self, path: str, data: bytes, *, mode: int = 0o644, parents: bool = True
    ) -> None:
        target = self._at(path)
        try:
            if parents:
                target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            target.chmod(mode)
        except OSError as error:
            raise _guest(error) from None

    async def list(self, path: str, *, limit: int = 10_000) -> list[FileInfo]:
        try:
            names = sorted(one.name for one in self._at(path).iterdir())[:limit]
        except OSError as error:
            raise _guest(error) from None
        return [await self.stat(f"{path}/{name}", follow=False) for name in names]

    async def stat(self, path: str, *, follow: bool = True) -> FileInfo:
        try:
            info = self._at(await self.realpath(path) if follow else path).lstat()
        except OSError as error:
            raise _guest(error) from None
        kinds = {stat.S_IFREG: FileKind.FILE, stat.S_IFDIR: FileKind.DIRECTORY}
        kind = kinds.get(stat.S_IFMT(info.st_mode), FileKind.OTHER)
        return FileInfo(
            name=Path(path).name,
            kind=FileKind.LINK if stat.S_ISLNK(info.st_mode) else kind,
            mode=info.st_mode,
            size=info.st_size,
            mtime_ns=info.st_mtime_ns,
            uid=info.st_uid,
            gid=info.st_gid,
        )

    async def mkdir(self, path: str, *, mode: int = 0o755, parents: bool = True) -> None:
        self._at(path).mkdir(mode, parents=parents, exist_ok=True)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        target = self._at(path)
        deep = recursive and target.is_dir() and not target.is_symlink()
        shutil.rmtree(target) if deep else target.unlink()

    async def move(self, source: str, target: str) -> None:
        self._at(source).rename(self._at(target))

    async def realpath(self, path: str) -> str:
        """Links are taken as they are spelled inside; the last part may be missing."""
        real, hops = Path("/"), 0
        todo = path.strip("/").split("/")
        while todo:
            part = todo.pop(0)
            if part in ("", "."):
                continue
            if part == "..":
                real = real.parent
                continue
            here = self._at(str(real / part))
            if here.is_symlink():
                hops += 1
                if hops > 40:
                    raise GuestError("loop", errno=40)
                link = str(here.readlink())
                real = Path("/") if link.startswith("/") else real
                todo = link.split("/") + todo
                continue
            if not here.exists() and todo:
                raise GuestError("missing", errno=2)
            real = real / part
        return str(real)


class HostProcess:
    def __init__(
        self, process: asyncio.subprocess.Process, outside: bytes = b"", workspace: bytes = b""
    ) -> None:
        self._process = process
        self._outside = outside
        self._workspace = workspace
        self.written: list[bytes] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        held = b""
        while chunk := await self._process.stdout.read(65536):
            if self._outside:
                held = (held + chunk).replace(self._outside, b"/workspace")
                chunk, held = held[: -len(self._outside)], held[-len(self._outside) :]
            yield "stdout", chunk
        yield "stdout", held
        if self._process.stderr is not None:
            yield "stderr", await self._process.stderr.read()

    async def write(self, data: bytes) -> None:
        self.written.append(data)
        if self._workspace:
            data = data.replace(b"/workspace/.tool-output", self._workspace + b"/.tool-output")
        try:
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        except OSError as error:
            raise _guest(error) from None

    async def close_stdin(self) -> None:
        self._process.stdin.close()

    async def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def close(self) -> None:
        """Also its pipes: with output in them that nobody reads it would never count as over."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signals.SIGKILL)
        # Not the transport: it would take the end of one that died already from who waits for it.
        for number in (0, 1, 2):
            if pipe := self._process._transport.get_pipe_transport(number):
                pipe.close()

    async def wait(self) -> ExecResult:
        code = await self._process.wait()
        return ExecResult(exit_code=code if code >= 0 else 128 - code, stdout=b"", stderr=b"")


class HostKills:
    def __init__(self, sandbox: "HostSandbox") -> None:
        self._sandbox = sandbox
        self._before = sandbox.kills

    async def rose(self) -> bool:
        return self._sandbox.kills > self._before


class HostSandbox:
    """`root` holds a `workspace`; `alive` set means that it is gone.

    `kills` stands for those of a memory limit, which it has not: each command that starts adds
    `kills_each`.
    """

    def __init__(self, sandbox_id: str, root: Path) -> None:
        self.id = sandbox_id
        self.root = root
        (root / "workspace").mkdir(parents=True, exist_ok=True)
        self.files = HostFiles(root)
        self.started: list[HostProcess] = []
        self.is_frozen = False
        self.rests = False
        self.calls = 0
        self.kills = self.kills_each = 0
        self._processes: list[asyncio.subprocess.Process] = []
        self._gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def exec(self, request: ExecRequest) -> ExecResult:
        inside, outside = b"/workspace", str(self.root / "workspace").encode()
        process = await self._spawn(self._argv(request), request)
        try:
            out, err = await asyncio.wait_for(
                process.communicate(request.stdin), request.timeout_seconds
            )
        except TimeoutError:
            os.killpg(process.pid, signals.SIGKILL)
            await process.wait()
            return ExecResult(exit_code=137, stdout=b"", stderr=b"", timed_out=True)
        out = out.replace(outside, inside)
        limit = request.output_limit_bytes
        return ExecResult(
            exit_code=process.returncode,
            stdout=out[:limit],
            stderr=err[:limit],
            truncated=len(out) > limit,
        )

    async def start(self, request: ExecRequest, *, stdin: bool = False) -> HostProcess:
        argv = self._argv(request)
        workspace = str(self.root / "workspace").encode()
        outside = b"" if argv == list(request.argv) else workspace
        process = HostProcess(await self._spawn(argv, request), outside, workspace)
        self.started.append(process)
        return process

    @property
    def languages(self) -> tuple[()]:
        return ()

    async def run_code(
        self, request: CodeRequest, tools: Serve = no_tools, on_log: OnLog = no_log
    ) -> CodeResult:
        raise UnsupportedError("no code")

    async def memory_kills(self) -> HostKills:
        found = HostKills(self)
        self.kills += self.kills_each
        return found

    @contextlib.asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        self.is_frozen = True
        try:
            yield
        finally:
            self.is_frozen = False

    @contextlib.asynccontextmanager
    async def resting(self) -> AsyncIterator[None]:
        self.rests = True
        try:
            yield
        finally:
            self.rests = False

    async def closed(self) -> str:
        return await asyncio.shield(self._gone)

    async def die(self, reason: str) -> None:
        for process in self._processes:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signals.SIGKILL)
                await process.wait()
            process._transport.close()
        if not self._gone.done():
            self._gone.set_result(reason)

    def _argv(self, request: ExecRequest) -> list[str]:
        outside = str(self.root / "workspace")
        return [part.replace("/workspace", outside) for part in request.argv]

    async def _spawn(self, argv: list[str], request: ExecRequest) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=self.root / "workspace",
            env={"PATH": "/usr/bin:/bin", **request.env},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT if request.merge_stderr else asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._processes.append(process)
        return process


class HostDriver:
    """Makes HostSandboxes under a directory; `broken` is raised instead of making one."""

    tier = "namespace"

    def __init__(self, root: Path) -> None:
        self._root = root
        self.live: dict[str, HostSandbox] = {}
        self.wished: list[list[Wish]] = []
        self.specs: list[SandboxSpec] = []
        self.broken: Exception | None = None

    async def create(self, spec: SandboxSpec) -> HostSandbox:
        if (self._root / spec.id).exists():
            raise ConflictError("exists")
        return await self._make(spec)

    async def restore(self, spec: SandboxSpec) -> HostSandbox:
        if not (self._root / spec.id).exists():
            raise NotFoundError("no state")
        return await self._make(spec)

    async def _make(self, spec: SandboxSpec) -> HostSandbox:
        if self.broken is not None:
            raise self.broken
        self.specs.append(spec)
        self.live[spec.id] = HostSandbox(spec.id, self._root / spec.id)
        return self.live[spec.id]

    async def sleep(self, sandbox_id: str) -> None:
        sandbox = self.live.pop(sandbox_id, None)
        if sandbox is not None:
            await sandbox.die("")

    async def destroy(self, sandbox_id: str) -> None:
        await self.sleep(sandbox_id)
        shutil.rmtree(self._root / sandbox_id, ignore_errors=True)

    def can_fork(self, sandbox_id: str) -> bool:
        return False

    async def fork(self, source: str, target: str) -> None:
        raise UnsupportedError("no forks")

    async def prepare(self, wishes: Sequence[Wish]) -> None:
        self.wished.append(list(wishes))

    async def leftovers(self) -> list[str]:
        return sorted(path.name for path in self._root.iterdir())


def _guest(error: OSError) -> GuestError:
    return GuestError(error.strerror or "failed", errno=error.errno or 5)
