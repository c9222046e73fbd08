"""The API on real sockets, over the store in memory and sandboxes that only pretend."""

import asyncio
import errno
import hashlib
import io
import os
import posixpath
import signal
import socket
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from handiwork.api.application import create_api
from handiwork.api.control import Control
from handiwork.api.server import serving
from handiwork.config import Settings
from handiwork.egress.protocol import EgressSocket
from handiwork.model.code import CodeError, CodeRequest, CodeResult, Language, LogLine
from handiwork.model.egress import EgressBinding, EgressGrant
from handiwork.model.environment import EnvironmentStatus
from handiwork.model.errors import (
    ConflictError,
    GuestError,
    NotFoundError,
    SandboxUnavailableError,
)
from handiwork.model.hook import HookInfo
from handiwork.model.sandbox import (
    ExecRequest,
    ExecResult,
    ListenerInfo,
    ProcessInfo,
    ProcessTable,
    SandboxRecord,
    SandboxState,
    TerminalSize,
)
from handiwork.model.snapshot import Snapshot, SnapshotChange, SnapshotDiff, SnapshotState
from handiwork.model.wire import OutputFile
from handiwork.sandboxes.images.store import Images
from handiwork.sandboxes.protocol import OnLog, Serve, Stream, no_log, no_tools
from handiwork.sessions.processes import Processes
from handiwork.sessions.runs import Runs
from handiwork.sessions.sandbox_request import SandboxRequest
from handiwork.testing.store import MemoryStore
from pretend_files import PretendFiles

ADMIN_KEY = "hwk_admin-key-of-the-tests"
SEAL_PRIVATE = X25519PrivateKey.from_private_bytes(bytes(range(32)))
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class PretendTar:
    """The sandbox's tar: packs all its files, whatever is asked for, or unpacks what it is fed."""

    def __init__(self, files: PretendFiles) -> None:
        self._files = files
        self.fed = io.BytesIO()

    def pack(self) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for path, data in self._files.content.items():
                info = tarfile.TarInfo(f".{path}")
                info.type = tarfile.FIFOTYPE if path.endswith("|") else tarfile.REGTYPE
                info.size = len(data or b"")
                archive.addfile(info, io.BytesIO(data or b""))
        return out.getvalue()

    def unpack(self, path: str) -> None:
        self.fed.seek(0)
        with tarfile.open(fileobj=self.fed) as archive:
            for info in archive:
                file = archive.extractfile(info)
                self._files.content[posixpath.normpath(f"{path}/{info.name}")] = (
                    file and file.read()
                )


class PretendProcess:
    """`echo` writes its words, `cat` its input, `type` too up to ^D, `false` fails, `sleep` lasts until it is killed."""

    def __init__(self, sandbox: "PretendSandbox", request: ExecRequest) -> None:
        self._sandbox = sandbox
        self._request = request
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._killed = asyncio.Event()

    @property
    def pid(self) -> int:
        return 7

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        name, *words = self._request.argv
        if name == "echo":
            for word in words:
                yield "stdout", word.encode()
            yield "stderr", b"done"
        elif name == "cat":
            while data := await self._input.get():
                yield "stdout", data
        elif name == "type":
            typed = b""
            while not typed.endswith(b"\x04"):
                typed = await self._input.get() or b""
                yield "stdout", typed
        elif name == "flood":
            while not self._killed.is_set():
                yield "stdout", b"x" * 65536
                await asyncio.sleep(0)
        elif name == "tar" and "-c" in words:
            packed = PretendTar(self._sandbox.files).pack()
            for at in range(0, len(packed), 4096):
                yield "stdout", packed[at : at + 4096]
            yield "stderr", self._sandbox.tar_says
        elif name == "tar":
            tar = PretendTar(self._sandbox.files)
            while data := await self._input.get():
                tar.fed.write(data)
            tar.unpack(words[-1])
            yield "stderr", self._sandbox.tar_says
        elif name == "sleep":
            yield "stdout", b"sleeping"
            await self._killed.wait()

    async def write(self, data: bytes) -> None:
        await self._input.put(data)

    async def close_stdin(self) -> None:
        await self._input.put(None)

    async def resize(self, size: TerminalSize) -> None:
        self._sandbox.sizes.append(size)

    async def signal(self, number: int) -> None:
        self._sandbox.signals.append(number)
        self._killed.set()

    def close(self) -> None:
        self._sandbox.signals.append(signal.SIGKILL)
        self._killed.set()

    async def wait(self) -> ExecResult:
        if self._killed.is_set():
            return ExecResult(exit_code=128 + signal.SIGKILL, stdout=b"", stderr=b"")
        program = self._request.argv[0]
        code = {"false": 1, "make": 2, "tar": self._sandbox.tar_code}.get(program, 0)
        return ExecResult(
            exit_code=code,
            stdout=b"",
            stderr=b"",
            timed_out=program == "late",
            truncated=program == "talk",
            out_of_memory=program == "make",
        )


class PretendConnection:
    """Port 7 echoes, 8 resets at the first byte, 6 reads nothing."""

    def __init__(self, sandbox: "PretendSandbox", port: int) -> None:
        self._sandbox = sandbox
        self._port = port
        self._sent: asyncio.Queue[bytes] = asyncio.Queue()
        self._broken = False
        sandbox.open_ports += 1

    async def read(self) -> bytes:
        data = await self._sent.get()
        if self._broken:
            raise GuestError("connection reset", errno=errno.ECONNRESET)
        return data

    async def write(self, data: bytes) -> None:
        if self._port == 6:
            await asyncio.Event().wait()
        self._broken = self._port == 8
        self._sent.put_nowait(data)

    async def finish(self) -> None:
        self._sent.put_nowait(b"")

    def close(self) -> None:
        self._sandbox.open_ports -= 1


@dataclass
class PretendSandbox:
    """One sandbox; `signals` is what its processes were sent, `requests` what was run."""

    id: str
    files: PretendFiles = field(default_factory=PretendFiles)
    signals: list[int] = field(default_factory=list)
    requests: list[ExecRequest] = field(default_factory=list)
    sizes: list[TerminalSize] = field(default_factory=list)
    cancelled: int = 0
    ports: list[int] = field(default_factory=list)
    open_ports: int = 0
    tar_code: int = 0
    tar_says: bytes = b""
    languages: tuple[Language, ...] = ()
    codes: list[CodeRequest] = field(default_factory=list)

    async def run_code(
        self, request: CodeRequest, tools: Serve = no_tools, on_log: OnLog = no_log
    ) -> CodeResult:
        """Log its text, and give it; `wait` waits to be cancelled, `fail` fails, `gone` is our fault."""
        self.codes.append(request)
        if request.code == "gone":
            raise SandboxUnavailableError("the cell is gone")
        line = LogLine(level="log", text=request.code)
        on_log(line)
        if request.code == "wait":
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled += 1
        error = CodeError(name="TypeError", message="no") if request.code == "fail" else None
        gave: dict[str, object] = {"gave": request.code}
        if request.language == "bash":
            gave = {"exit_code": 3, "stdout": "out\n", "stderr": "err"}
        value = b"null" if error else msgspec.json.encode(gave)
        return CodeResult(value_json=value, error=error, logs=(line,), wall_seconds=0.5)

    async def exec(self, request: ExecRequest) -> ExecResult:
        process = await self.start(
            msgspec.structs.replace(request, stdin=None), stdin=request.stdin is not None
        )
        self.requests[-1] = request
        if request.stdin is not None:
            await process.write(request.stdin)
            await process.close_stdin()
        out: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        try:
            async for stream, data in process.output():
                out[stream] += data
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        ended = await process.wait()
        return msgspec.structs.replace(ended, **out)

    async def start(self, request: ExecRequest, *, stdin: bool = False) -> PretendProcess:
        assert request.stdin is None
        self.requests.append(request)
        return PretendProcess(self, request)

    async def terminal(self, request: ExecRequest, size: TerminalSize) -> PretendProcess:
        self.sizes.append(size)
        return await self.start(request)

    async def connect(self, port: int) -> PretendConnection:
        self.ports.append(port)
        if port == 9:
            raise GuestError("nobody listens", errno=errno.ECONNREFUSED)
        return PretendConnection(self, port)

    async def ps(self, *, limit: int = 4096) -> ProcessTable:
        one = ProcessInfo(
            pid=7,
            parent=1,
            uid=0,
            state="S",
            threads=1,
            tree=1,
            cpu_seconds=0.5,
            memory_kib=99,
            age_seconds=3,
            command="serve",
        )
        listeners = [ListenerInfo(pid=pid, uid=0, address="127.0.0.1", port=80) for pid in (7, 0)]
        return ProcessTable(processes=(one,), listeners=tuple(listeners))

    async def closed(self) -> str:
        await asyncio.Event().wait()
        return ""


class PretendSandboxes:
    """Keeps records in the store as the real ones do."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.live: dict[str, PretendSandbox] = {}
        self.refreshed: list[str] = []
        self.to_prepare = asyncio.Event()

    async def create(self, request: SandboxRequest) -> SandboxRecord:
        if request.policy:
            await self._store.policies.get(request.policy)
        record = SandboxRecord(
            id=f"sbx_pretend{len(self.live):04d}",
            tier=request.tier or "namespace",
            image=request.image or "host",
            policy=request.policy,
            env=request.env,
            metadata=request.metadata,
            limits=request.limits,
            state=SandboxState.RUNNING,
            created_at=NOW,
            updated_at=NOW,
        )
        await self._store.sandboxes.save(record)
        self.live[record.id] = PretendSandbox(record.id)
        return record

    async def use(self, sandbox_id: str) -> PretendSandbox:
        record = await self._store.sandboxes.get(sandbox_id)
        if record.state is not SandboxState.RUNNING:
            raise ConflictError(f"the sandbox {sandbox_id} is {record.state.value}")
        return self.live[sandbox_id]

    @asynccontextmanager
    async def lend(self, sandbox_id: str) -> AsyncIterator[PretendSandbox]:
        yield await self.use(sandbox_id)

    async def sleep(self, sandbox_id: str) -> SandboxRecord:
        return await self._moved(sandbox_id, SandboxState.SLEEPING)

    async def wake(self, sandbox_id: str) -> SandboxRecord:
        return await self._moved(sandbox_id, SandboxState.RUNNING)

    async def close(self, sandbox_id: str) -> SandboxRecord:
        return await self._moved(sandbox_id, SandboxState.GONE)

    async def refresh(self, policy_name: str = "") -> None:
        self.refreshed.append(policy_name)

    async def _moved(self, sandbox_id: str, state: SandboxState) -> SandboxRecord:
        record = await self._store.sandboxes.get(sandbox_id)
        moved = msgspec.structs.replace(record, state=state)
        await self._store.sandboxes.save(moved)
        return moved


class PretendSnapshots:
    """Snapshots in the store alone; `asked` keeps what was asked for."""

    def __init__(self, store: MemoryStore, sandboxes: PretendSandboxes) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self.asked: list[tuple[object, ...]] = []
        self.cut_short = False

    async def state(self, sandbox_id: str) -> SnapshotState:
        await self._store.sandboxes.get(sandbox_id)
        return SnapshotState(
            status=await self._store.snapshots.status(sandbox_id),
            snapshots=tuple(await self._store.snapshots.list(sandbox_id)),
        )

    async def take(self, sandbox_id: str) -> Snapshot:
        there = await self.state(sandbox_id)
        taken = Snapshot(
            sandbox_id=sandbox_id,
            number=len(there.snapshots) + 1,
            created_at=NOW,
            reason="request",
            image="abc",
            entries=3,
            content_bytes=5 << 20,
            new_bytes=1 << 20,
            skipped=("/s is a socket",),
            skipped_count=1,
        )
        await self._store.snapshots.put(taken)
        return taken

    async def rollback(self, sandbox_id: str, number: int, *, keep_present: bool) -> SandboxRecord:
        self.asked.append(("rollback", number, keep_present))
        return await self._known(sandbox_id, number)

    async def diff(
        self, sandbox_id: str, before: int, after: int, *, prefix: str, limit: int
    ) -> SnapshotDiff:
        self.asked.append(("diff", before, after, prefix, limit))
        change = SnapshotChange(path="/a", change="added")
        return SnapshotDiff(before=before, after=after, changes=(change,), truncated=limit == 1)

    async def pin(self, sandbox_id: str, number: int, name: str) -> None:
        await self._store.snapshots.pin(sandbox_id, name, number)

    async def unpin(self, sandbox_id: str, name: str) -> None:
        await self._store.snapshots.unpin(sandbox_id, name)

    async def remove(self, sandbox_id: str, number: int) -> None:
        await self._store.snapshots.remove(sandbox_id, number)

    async def export(self, sandbox_id: str, number: int) -> AsyncGenerator[bytes, None]:
        await self._known(sandbox_id, number)
        for piece in (b"HWFILE1\n", b"content", b"" if self.cut_short else b"HWFILE.\n"):
            yield piece

    async def import_file(self, file: int, size: int, request: SandboxRequest) -> SandboxRecord:
        self.asked.append(("import", os.pread(file, size, 0), request.policy, request.limits))
        return await self._sandboxes.create(request)

    async def fork(
        self, sandbox_id: str, count: int, *, number: int | None, policy: str, wake: bool
    ) -> list[SandboxRecord]:
        self.asked.append(("fork", count, number, policy, wake))
        await self._store.sandboxes.get(sandbox_id)
        return [await self._sandboxes.create(SandboxRequest()) for _ in range(count)]

    async def _known(self, sandbox_id: str, number: int) -> SandboxRecord:
        if number > len(await self._store.snapshots.list(sandbox_id)):
            raise NotFoundError(f"{sandbox_id} has no snapshot {number}")
        return await self._store.sandboxes.get(sandbox_id)


class PretendBoundary:
    """Knows the key that secrets are sealed to."""

    async def open(self, binding: EgressBinding, grant: EgressGrant) -> EgressSocket:
        raise NotFoundError("not here")

    async def update(self, binding_id: str, grant: EgressGrant) -> None:
        """Nothing is open."""

    async def close(self, binding_id: str) -> None:
        """Nothing is open."""

    async def seal_key(self, tenant: str) -> bytes:
        return SEAL_PRIVATE.public_key().public_bytes_raw()


class PretendHooks:
    """One hook that works and one that never did."""

    def __init__(self) -> None:
        self.refreshed = 0

    async def catalog(self) -> tuple[HookInfo, ...]:
        return (
            HookInfo(name="works", stages=("request",), digest="0123456789ab"),
            HookInfo(name="broken", error="line 1: invalid syntax"),
        )

    async def refresh(self) -> None:
        self.refreshed += 1


@dataclass
class Served:
    """A running API: where it listens, and what stands behind it."""

    url: str
    socket_path: str
    store: MemoryStore
    sandboxes: PretendSandboxes
    snapshots: PretendSnapshots
    stopped: list[str]
    not_ready: dict[str, str]
    indexed: list[int]
    models_told: list[list[str]]
    woken: list[int]
    hooks: PretendHooks

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {ADMIN_KEY}"}


async def no_files(_session_id: str) -> tuple[OutputFile, ...]:
    return ()


@asynccontextmanager
async def served_api(
    folder: Path, settings: Settings | None = None, **control: Any
) -> AsyncIterator[Served]:
    """Serve on a free port of loopback and on a unix socket in the folder."""
    store = control.get("store") or MemoryStore()
    tcp = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(folder / "api.sock"))
    sandboxes = PretendSandboxes(store)
    served = Served(
        url=f"http://127.0.0.1:{tcp.getsockname()[1]}",
        socket_path=str(folder / "api.sock"),
        store=store,
        sandboxes=sandboxes,
        snapshots=PretendSnapshots(store, sandboxes),
        stopped=[],
        not_ready={"egress": ""},
        indexed=[],
        woken=[],
        models_told=[],
        hooks=PretendHooks(),
    )

    async def stop_session(session_id: str) -> None:
        served.stopped.append(session_id)

    async def environments() -> list[EnvironmentStatus]:
        return []

    async def index_audit() -> None:
        served.indexed.append(1)

    async def models_changed() -> None:
        served.models_told.append([each.name for each in await store.models.list()])

    parts: dict[str, Any] = {
        "store": store,
        "images": Images(folder / "images"),
        "sandboxes": served.sandboxes,
        "snapshots": served.snapshots,
        "boundary": PretendBoundary(),
        "stop_session": stop_session,
        "index_audit": index_audit,
        "environments": environments,
        "environment_ids": ("env_1",),
        "readiness": lambda: served.not_ready,
        "processes": Processes(store=store, clock=lambda: NOW),
        "runs": Runs(store=store, talk=None, environment_id="", files=no_files, clock=lambda: NOW),
        "models_changed": models_changed,
        "wake": lambda: served.woken.append(1),
        "now": lambda: NOW,
        "admin_key_hash": hashlib.sha256(ADMIN_KEY.encode()).digest(),
        "settings": settings or Settings(),
        "hooks": served.hooks,
    }
    api = create_api(Control(**(parts | control)))
    async with parts["processes"], serving(api, [tcp, unix], stop_seconds=1):
        yield served
