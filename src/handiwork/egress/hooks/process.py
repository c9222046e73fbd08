"""The hooks' process: takes calls of proxies, runs them side by side, takes up files that change."""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from handiwork.egress.hooks.calls import context_of, result_of
from handiwork.egress.hooks.loading import Shelf
from handiwork.egress.hooks.watchdog import Watchdog
from handiwork.egress.hooks.way_out import WayOut
from handiwork.egress.hooks.wire import (
    MAX_CALLS,
    Call,
    Catalog,
    Failed,
    Frames,
    FromHooks,
    Result,
    decode_call,
    frame,
)
from handiwork.observe import log

RELOAD_SECONDS = 0.25
GRACE_SECONDS = 0.5
"""A hook that was told to stop has so long for it."""
READ_BYTES = 262_144
MAX_CONNECTIONS = 64
SPOILED = 70


class HooksSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is told at its start: the first line of its standard input, JSON.

    `listen_fd`: the unix socket that listens for proxies. `directory`: the files. `state`: a
    directory of its own. `exit_fd`: its own egress socket (O_PATH); absent, hooks call nobody.
    """

    listen_fd: int
    directory: str
    state: str
    exit_fd: int | None = None
    call_seconds: float = 2.0
    memory_mib: int = 512


class HooksProcess:
    """Serves until it is told to stop; ends at once when a hook cannot be stopped otherwise."""

    def __init__(self, settings: HooksSettings, end: Callable[[int], object] = os._exit) -> None:
        self._settings = settings
        self._end = end
        self._threads = threading.active_count()
        self._state = Path(settings.state)
        way = "" if settings.exit_fd is None else f"/proc/self/fd/{settings.exit_fd}"
        self._http = WayOut(way)
        self._watchdog = Watchdog(settings.call_seconds + 2 * GRACE_SECONDS)
        self._shelf = Shelf(Path(settings.directory), self._state / "kept", self._watchdog.limited)
        self._writers: set[asyncio.StreamWriter] = set()
        self._ended = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._log = log.get("hooks")

    def stop(self) -> None:
        """End when what is at hand is done."""
        self._ended.set()

    async def run(self, listener: socket.socket, ready: Callable[[], None]) -> None:
        """Serve; `ready` is called once."""
        self._shelf.refresh()
        async with self._tasks:
            standing = [
                self._tasks.create_task(self._watchdog.run()),
                self._tasks.create_task(self._reload()),
            ]
            server = await asyncio.start_unix_server(self._connected, sock=listener)
            ready()
            await self._ended.wait()
            server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            for task in standing:
                task.cancel()
        self._watchdog.rest()

    async def _reload(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            if self._shelf.refresh():
                for writer in list(self._writers):
                    self._send(writer, Catalog(hooks=self._shelf.catalog()))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._writers) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            self._send(writer, Catalog(hooks=self._shelf.catalog()))
            await self._converse(reader, writer)
        except (ValueError, msgspec.MsgspecError):
            self._log.error("a frame could not be read")
        except ConnectionError:
            pass  # the proxy is gone: so are the calls' flows
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take calls until the proxy is gone; those under way go on for as long as they may."""
        frames = Frames()
        running: set[asyncio.Task[None]] = set()
        while data := await reader.read(READ_BYTES):
            for payload in frames.take(data):
                if len(running) >= MAX_CALLS:
                    raise ValueError
                task = self._tasks.create_task(self._answer(decode_call(payload), writer))
                running.add(task)
                task.add_done_callback(running.discard)

    async def _answer(self, call: Call, writer: asyncio.StreamWriter) -> None:
        self._send(writer, await self._result(call, writer))
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    async def _result(self, call: Call, writer: asyncio.StreamWriter) -> Result:
        hook = self._shelf.get(call.hook)
        if hook is None:
            return Failed(id=call.id, reason="there is no such hook, or no version that works")
        context = context_of(call, self._state, self._http)
        task = self._tasks.create_task(self._guarded(call, result_of(call, hook, context), writer))
        await asyncio.wait([task], timeout=self._settings.call_seconds)
        if task.done():
            return task.result()
        return await self._overran(call, task, writer)

    async def _guarded(
        self, call: Call, work: Coroutine[Any, Any, Result], writer: asyncio.StreamWriter
    ) -> Result:
        try:
            return await work
        except MemoryError:
            self._log.error("no memory left; the process ends", hook=call.hook)
            return self._spoiled(Failed(id=call.id, reason="it used up the memory"), writer)
        except asyncio.CancelledError:
            return Failed(id=call.id, reason="it was stopped")

    async def _overran(
        self, call: Call, task: asyncio.Task[Result], writer: asyncio.StreamWriter
    ) -> Result:
        """Stop a call; where it goes on all the same, or left a thread that may, end the process."""
        late = Failed(id=call.id, reason=f"it took over {self._settings.call_seconds:g} s")
        self._log.error("hook too slow", hook=call.hook, seconds=self._settings.call_seconds)
        task.cancel()
        await asyncio.wait([task], timeout=GRACE_SECONDS)
        if not task.done() or threading.active_count() > self._threads:
            self._log.error("a hook went on after its time; the process ends", hook=call.hook)
            return self._spoiled(late, writer)
        return late

    def _spoiled(self, result: Result, writer: asyncio.StreamWriter) -> Result:
        self._send(writer, result)
        self._end(SPOILED)
        return result

    def _send(self, writer: asyncio.StreamWriter, message: FromHooks) -> None:
        if not writer.is_closing():
            writer.write(frame(message))
