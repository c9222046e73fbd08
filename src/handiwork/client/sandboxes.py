"""Sandboxes as their user sees them."""

import asyncio
import errno
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, Unpack

import msgspec

from handiwork.client import trees
from handiwork.client.code import CodeOptions, body_of, run, stream
from handiwork.client.link import Link, Query, lines, part
from handiwork.client.ports import Connection, forwarding
from handiwork.client.processes import QUIET_SECONDS, Command, Processes, argv_of
from handiwork.client.snapshots import TAKE_SECONDS, Snapshots, pieces_of
from handiwork.client.terminal import Terminal
from handiwork.client.transfer import Download, Transfer, upload
from handiwork.client.watching import Watch
from handiwork.model.code import CodeResult, Language, LogLine
from handiwork.model.errors import (
    ConfigError,
    GuestError,
    HandiworkError,
    SandboxUnavailableError,
)
from handiwork.model.sandbox import (
    ExecResult,
    FileInfo,
    Limits,
    ProcessTable,
    SandboxRecord,
    TerminalSize,
    TreeReport,
)
from handiwork.model.snapshot import Snapshot
from handiwork.model.wire import (
    MAX_FILE_BYTES,
    MAX_LIST,
    DirectoryBody,
    ExecBody,
    ExecFrame,
    ForkBody,
    Listing,
    MoveBody,
    SandboxBody,
    TerminalBody,
    error_of,
)

CREATE_SECONDS = 180.0
FILE_SECONDS = 300.0
MARGIN_SECONDS = 30.0
"""What a call may take beyond the time its command may take."""


class ExecOptions(TypedDict, total=False):
    """How a command is run; the defaults are those of `ExecRequest`.

    `env` is added to the sandbox's, `user` is one of the sandbox. `output_limit_bytes` is kept of
    each stream: 8 MiB unless told by `exec`, all by `exec_stream`.
    """

    cwd: str
    env: Mapping[str, str]
    stdin: bytes | str | None
    user: str
    timeout_seconds: float
    output_limit_bytes: int
    merge_stderr: bool


class Sandboxes:
    """`hw.sandboxes`: make and find sandboxes."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def create(
        self,
        *,
        tier: str = "",
        image: str = "",
        size: str = "",
        limits: Limits | None = None,
        policy: str = "",
        env: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> "Sandbox":
        """Make a sandbox; what is not given is the operator's default."""
        body = SandboxBody(
            tier=tier,
            image=image,
            size=size,
            limits=limits,
            policy=policy,
            env=env or {},
            metadata=metadata or {},
        )
        record = await self._link.send(
            "POST", "/api/sandboxes", SandboxRecord, body, seconds=CREATE_SECONDS
        )
        return Sandbox(self._link, record)

    async def import_snapshot(
        self, path: str | os.PathLike[str], *, tier: str = "", size: str = "", policy: str = ""
    ) -> "Sandbox":
        """Make a sandbox of a file that `box.snapshots.export` wrote; it sleeps."""
        query: Query = {"tier": tier, "size": size, "policy": policy}
        try:
            file = await asyncio.to_thread(Path(path).open, "rb")
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        with file:
            async with self._link.stream(
                "POST",
                "/api/sandboxes/import",
                query=query,
                content=pieces_of(file),
                media_type="application/octet-stream",
                seconds=TAKE_SECONDS,
            ) as chunks:
                body = b"".join([chunk async for chunk in chunks])
        return Sandbox(self._link, msgspec.json.decode(body, type=SandboxRecord))

    async def get(self, sandbox_id: str) -> "Sandbox":
        """Find one by its id; NotFoundError."""
        record = await self._link.get(f"/api/sandboxes/{part(sandbox_id)}", SandboxRecord)
        return Sandbox(self._link, record)

    async def list(self, *, include_gone: bool = False, limit: int = 100) -> list["Sandbox"]:
        """List them, newest first."""
        query: Query = {"include_gone": include_gone, "limit": limit}
        found = await self._link.get("/api/sandboxes", Listing[SandboxRecord], query)
        return [Sandbox(self._link, record) for record in found.data]


class Sandbox:
    """One sandbox; as an async context it is closed at the end."""

    def __init__(self, link: Link, record: SandboxRecord) -> None:
        self._link = link
        self._path = f"/api/sandboxes/{part(record.id)}"
        self.record = record
        self.files = Files(link, f"{self._path}/files")
        self.processes = Processes(link, f"{self._path}/processes")
        self.snapshots = Snapshots(link, self._path)

    def __repr__(self) -> str:
        return f"Sandbox({self.id}, {self.record.state.value})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def id(self) -> str:
        """Its id."""
        return self.record.id

    async def exec(self, command: Command, **options: Unpack[ExecOptions]) -> ExecResult:
        """Run a command (a text is run by the shell) to its end. Failing is a result."""
        body = _body(command, options)
        return await self._link.send(
            "POST",
            f"{self._path}/exec",
            ExecResult,
            body,
            seconds=body.timeout_seconds + MARGIN_SECONDS,
        )

    @asynccontextmanager
    async def exec_stream(
        self, command: Command, **options: Unpack[ExecOptions]
    ) -> AsyncGenerator["ExecStream", None]:
        """Run a command and read its output as it comes; leaving the context kills it."""
        body = _body(command, options)
        async with self._link.stream(
            "POST",
            f"{self._path}/exec/stream",
            content=msgspec.json.encode(body),
            seconds=body.timeout_seconds + MARGIN_SECONDS,
        ) as chunks:
            yield ExecStream(chunks)

    async def run_code(
        self,
        code: str,
        language: Language = "javascript",
        *,
        on_log: Callable[[LogLine], None] | None = None,
        **options: Unpack[CodeOptions],
    ) -> CodeResult:
        """Run code to its end; `on_log` is told what it logs as it comes. Failing is a result.

        UnsupportedError where the sandbox's tier runs commands: `exec` an interpreter there.
        """
        body = body_of(code, language, options)
        if on_log is None:
            return await run(self._link, self._path, body)
        return await stream(self._link, self._path, body, on_log)

    @asynccontextmanager
    async def terminal(
        self,
        command: Command = ("/bin/sh", "-l"),
        *,
        columns: int = 80,
        rows: int = 24,
        cwd: str = "/workspace",
        env: Mapping[str, str] | None = None,
        user: str = "root",
    ) -> AsyncGenerator[Terminal, None]:
        """Run a command on a terminal of its own; leaving the context kills it."""
        body = TerminalBody(
            argv=argv_of(command),
            cwd=cwd,
            env=env or {},
            user=user,
            size=TerminalSize(columns=columns, rows=rows),
        )
        async with self._link.websocket(f"{self._path}/terminal") as socket:
            terminal = Terminal(socket)
            await terminal.open(body)
            yield terminal

    @asynccontextmanager
    async def connect(self, port: int) -> AsyncGenerator[Connection, None]:
        """Connect to who listens on a port inside; leaving the context resets what has not ended."""
        async with self._link.websocket(f"{self._path}/ports/{port:d}") as socket:
            connection = Connection(socket)
            await connection.open()
            yield connection

    @asynccontextmanager
    async def forward(
        self,
        port: int,
        *,
        listen: int = 0,
        on_error: Callable[[HandiworkError], None] = lambda _: None,
    ) -> AsyncGenerator[int, None]:
        """Lead a port of this machine's 127.0.0.1 (`listen` 0: a free one, which is yielded) inside."""
        async with forwarding(lambda: self.connect(port), listen, on_error) as ours:
            yield ours

    async def ps(self) -> ProcessTable:
        """Tell what runs inside, what it uses, and where it listens; ConflictError when it sleeps."""
        return await self._link.get(f"{self._path}/ps", ProcessTable)

    async def snapshot(self) -> Snapshot:
        """Take a snapshot of what it wrote, now; a running one is frozen for a moment."""
        return await self.snapshots.take()

    async def fork(
        self, count: int = 1, *, number: int | None = None, policy: str = "", wake: bool = True
    ) -> "list[Sandbox]":
        """Make sandboxes of it, as it is now or of a snapshot; `wake` False: they sleep."""
        body = ForkBody(count=count, number=number, policy=policy, wake=wake)
        made = await self._link.send(
            "POST", f"{self._path}/fork", Listing[SandboxRecord], body, seconds=TAKE_SECONDS
        )
        return [Sandbox(self._link, record) for record in made.data]

    async def sleep(self) -> None:
        """End its processes, keep its files."""
        self.record = await self._moved("sleep")

    async def wake(self) -> None:
        """Start it again from its files."""
        self.record = await self._moved("wake")

    async def close(self) -> None:
        """End it and delete its files. What is gone already is fine."""
        await self._link.send("DELETE", self._path, type(None), seconds=CREATE_SECONDS)

    async def refresh(self) -> SandboxRecord:
        """Ask for its record anew."""
        self.record = await self._link.get(self._path, SandboxRecord)
        return self.record

    async def _moved(self, verb: Literal["sleep", "wake"]) -> SandboxRecord:
        return await self._link.send(
            "POST", f"{self._path}/{verb}", SandboxRecord, seconds=CREATE_SECONDS
        )


class ExecStream:
    """A command that runs: `output()` once, then `wait()`."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._frames = _frames(chunks)
        self._result: ExecResult | None = None

    async def output(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]:
        """Yield pieces of output as they come."""
        async for frame in self._frames:
            if frame.stream is not None:
                yield frame.stream, frame.data
            if frame.error is not None:
                raise error_of(frame.error)
            if frame.result is not None:
                self._result = frame.result

    async def wait(self) -> ExecResult:
        """Return how it ended, after what output is left was dropped."""
        async for _piece in self.output():
            pass
        if self._result is None:
            raise SandboxUnavailableError("the control plane stopped before the command ended")
        return self._result


class Files:
    """`box.files`: files by absolute path inside the sandbox; errors of a path are GuestError."""

    def __init__(self, link: Link, path: str) -> None:
        self._link = link
        self._path = path

    async def read(self, path: str, *, offset: int = 0, limit_bytes: int | None = None) -> bytes:
        """Return a file's bytes from `offset` on, at most `limit_bytes`; more than 256 MiB is GuestError."""
        kept = bytearray()
        async with self.read_stream(path, offset=offset, limit_bytes=limit_bytes) as pieces:
            async for piece in pieces:
                kept += piece
                if len(kept) > MAX_FILE_BYTES:
                    raise GuestError(
                        f"{path[:200]} has more than {MAX_FILE_BYTES} bytes: take it as it comes"
                        " (read_stream), or in parts",
                        errno=errno.EFBIG,
                    )
        return bytes(kept)

    @asynccontextmanager
    async def read_stream(
        self, path: str, *, offset: int = 0, limit_bytes: int | None = None
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """Yield the pieces of a file of any size, as they come; what is cut off raises HandiworkError."""
        query: Query = {"path": path, "offset": offset, "limit_bytes": limit_bytes}
        async with self._link.stream(
            "GET", self._path, query=query, seconds=FILE_SECONDS
        ) as pieces:
            yield pieces

    async def write_stream(
        self,
        path: str,
        pieces: AsyncIterable[bytes],
        *,
        mode: int = 0o644,
        parents: bool = True,
    ) -> None:
        """Write a file of any size as its pieces come; whole, or not at all where they break off."""
        async with self._link.stream(
            "PUT",
            self._path,
            query={"path": path, "mode": mode, "parents": parents},
            content=pieces,
            media_type="application/octet-stream",
            seconds=FILE_SECONDS,
        ) as answer:
            async for _ in answer:
                pass

    async def write(
        self, path: str, data: bytes | str, *, mode: int = 0o644, parents: bool = True
    ) -> None:
        """Write a file whole or not at all."""
        await self._link.raw(
            "PUT",
            self._path,
            query={"path": path, "mode": mode, "parents": parents},
            content=_bytes(data),
            media_type="application/octet-stream",
            seconds=FILE_SECONDS,
        )

    async def list(self, path: str, *, limit: int = MAX_LIST) -> list[FileInfo]:
        """List a directory by name."""
        query: Query = {"path": path, "limit": limit}
        return list((await self._link.get(f"{self._path}/list", Listing[FileInfo], query)).data)

    async def stat(self, path: str, *, follow: bool = True) -> FileInfo:
        """Tell what a path names."""
        return await self._link.get(
            f"{self._path}/stat", FileInfo, {"path": path, "follow": follow}
        )

    async def mkdir(self, path: str, *, mode: int = 0o755, parents: bool = True) -> None:
        """Make a directory."""
        body = DirectoryBody(path=path, mode=mode, parents=parents)
        await self._link.send("POST", f"{self._path}/mkdir", type(None), body)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, a link, or a directory."""
        query: Query = {"path": path, "recursive": recursive}
        await self._link.raw("DELETE", self._path, query=query)

    async def move(self, source: str, target: str) -> None:
        """Rename within the sandbox."""
        body = MoveBody(source=source, target=target)
        await self._link.send("POST", f"{self._path}/move", type(None), body)

    @asynccontextmanager
    async def watch(self, path: str, *, recursive: bool = True) -> AsyncGenerator[Watch, None]:
        """Watch a directory, and those below it; leaving the context ends it."""
        query: Query = {"path": path, "recursive": recursive}
        async with self._link.stream(
            "GET", f"{self._path}/watch", query=query, seconds=QUIET_SECONDS
        ) as chunks:
            watch = Watch(chunks)
            await watch.open()
            yield watch

    async def upload_dir(self, source: str | os.PathLike[str], target: str) -> Transfer:
        """Copy a directory of this machine into the sandbox; links are left out and told."""
        return await upload(self, Path(source), target)

    async def download_dir(self, source: str, target: str | os.PathLike[str]) -> Transfer:
        """Copy a directory of the sandbox to this machine; nothing is written outside `target`."""
        return await Download(self).run(source, Path(target))

    async def get_tree(
        self,
        path: str,
        target: trees.Place,
        *,
        limit_bytes: int | None = None,
        limit_entries: int | None = None,
    ) -> TreeReport:
        """Write a directory's content, or one file, as a tar to a new file here, or to an open one.

        What it holds is a guest's: no name and no hard link leads out of it, symbolic links may.
        """
        query: Query = {"path": path, "limit_bytes": limit_bytes, "limit_entries": limit_entries}
        return await trees.fetch(self._link, f"{self._path}/tree", query, target)

    async def put_tree(
        self,
        path: str,
        source: trees.Place,
        *,
        limit_bytes: int | None = None,
        limit_entries: int | None = None,
    ) -> TreeReport:
        """Unpack a tar of this machine, not compressed, into a directory; what fails is unpacked in part."""
        query: Query = {"path": path, "limit_bytes": limit_bytes, "limit_entries": limit_entries}
        return await trees.send(self._link, f"{self._path}/tree", query, source)


def _body(command: Command, options: ExecOptions) -> ExecBody:
    given: dict[str, Any] = {**options, "stdin": _bytes(options.get("stdin"))}
    return ExecBody(argv=argv_of(command), **given)


def _bytes(data: bytes | str | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data


async def _frames(chunks: AsyncIterator[bytes]) -> AsyncGenerator[ExecFrame, None]:
    async for line in lines(chunks):
        try:
            yield msgspec.json.decode(line, type=ExecFrame)
        except msgspec.DecodeError:
            raise SandboxUnavailableError("the stream of the command was cut off") from None
