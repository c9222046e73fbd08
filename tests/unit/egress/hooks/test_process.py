"""The process on its socket, in this process: frames in, frames out; the end is only told."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest import mock

from handiwork.egress.hooks import process
from handiwork.egress.hooks.process import SPOILED, HooksProcess, HooksSettings
from handiwork.egress.hooks.watchdog import Watchdog
from handiwork.egress.hooks.wire import (
    MAX_CALLS,
    MAX_FRAME_BYTES,
    Call,
    Caller,
    Catalog,
    Failed,
    Frames,
    FromHooks,
    Passed,
    RequestForm,
    decode_from_hooks,
    frame,
)

CALLER = Caller(tenant="t", agent_id="", session_id="", sandbox_id="", tool="", tool_use_id="")
REQUEST = RequestForm(
    method="GET", scheme="https", host="h", port=443, path="/", query="", headers=[], body=None
)
FILES = {
    "quick": "async def on_request(ctx, request): pass",
    "slow": "import asyncio\nasync def on_request(ctx, request): await asyncio.sleep(60)",
    "eats": "async def on_request(ctx, request): raise MemoryError",
}


class Peer:
    """One proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._frames = Frames()
        self._told: list[FromHooks] = []

    async def next(self) -> FromHooks | None:
        async with asyncio.timeout(5):
            while not self._told:
                data = await self.reader.read(65536)
                if not data:
                    return None
                self._told += [decode_from_hooks(one) for one in self._frames.take(data)]
        return self._told.pop(0)

    def call(self, number: int, hook: str) -> None:
        call = Call(id=number, hook=hook, stage="request", caller=CALLER, request=REQUEST)
        self.writer.write(frame(call))


class Unarmed(Watchdog):
    """Ends no process: ours is that of the tests, whose alarm is their own time limit."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def beat(self) -> None:
        pass

    def rest(self) -> None:
        pass


@asynccontextmanager
async def serving(directory: Path, ended: list[int]) -> AsyncIterator[Path]:
    for name, text in FILES.items():
        (directory / f"{name}.py").write_text(text)
    path = directory / "s"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    settings = HooksSettings(
        listen_fd=listener.fileno(),
        directory=str(directory),
        state=str(directory),
        call_seconds=1.0,
    )
    with mock.patch.object(process, "Watchdog", Unarmed):
        serving = HooksProcess(settings, ended.append)
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(serving.run(listener, ready.set))
        await ready.wait()
        try:
            yield path
        finally:
            serving.stop()
            await running


async def connect(path: Path) -> Peer:
    peer = Peer(*await asyncio.open_unix_connection(path))
    catalog = await peer.next()
    assert isinstance(catalog, Catalog)
    assert [one.name for one in catalog.hooks] == ["eats", "quick", "slow"]
    return peer


async def test_calls_run_side_by_side_and_late_ones_are_stopped(tmp_path: Path) -> None:
    ended: list[int] = []
    await asyncio.to_thread(int)  # a thread that was there before is no hook's
    async with serving(tmp_path, ended) as path:
        peer = await connect(path)
        peer.call(1, "slow")
        peer.call(2, "quick")
        peer.call(3, "none")
        told = [await peer.next() for _ in range(3)]
        peer.writer.close()
    assert {type(one): one.id for one in told[:2]} == {Passed: 2, Failed: 3}
    late = told[2]
    assert isinstance(late, Failed)
    assert (late.id, late.reason) == (1, "it took over 1 s")
    assert ended == []


async def test_a_call_without_memory_is_told_and_ends_the_process(tmp_path: Path) -> None:
    ended: list[int] = []
    async with serving(tmp_path, ended) as path:
        peer = await connect(path)
        peer.call(1, "eats")
        told = await peer.next()
        peer.writer.close()
    assert isinstance(told, Failed)
    assert ended == [SPOILED]


async def test_what_cannot_be_read_ends_the_connection_and_no_other(tmp_path: Path) -> None:
    async with serving(tmp_path, []) as path:
        bad, too_large, flood, good = [await connect(path) for _ in range(4)]
        bad.writer.write(b"\x03\0\0\0abc")
        too_large.writer.write((MAX_FRAME_BYTES + 1).to_bytes(4, "little"))
        for number in range(MAX_CALLS + 1):
            flood.call(number, "slow")
        for peer in (bad, too_large, flood):
            with contextlib.suppress(ConnectionError):
                assert await peer.next() is None
            peer.writer.close()
        good.call(1, "quick")
        assert isinstance(await good.next(), Passed)
        good.writer.close()


async def test_a_change_is_told_to_who_is_connected(tmp_path: Path) -> None:
    async with serving(tmp_path, []) as path:
        peer = await connect(path)
        (tmp_path / "new.py").write_text(FILES["quick"])
        told = await peer.next()
        peer.writer.close()
    assert isinstance(told, Catalog)
    assert "new" in [one.name for one in told.hooks]
