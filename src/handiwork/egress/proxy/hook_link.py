"""The proxy's end of the hooks' process: calls, side by side, bounded in number and time.

Whatever fails is a HookFailed with the reason; nobody is let through for want of an answer.
"""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from handiwork.egress.hooks.wire import (
    MAX_CALLS,
    Call,
    Catalog,
    Denied,
    Failed,
    Frames,
    Result,
    decode_from_hooks,
    frame,
)
from handiwork.model.hook import MAX_HOOKS, HookInfo, Stage
from handiwork.observe import log

CONNECT_SECONDS = 5.0
GRACE_SECONDS = 2.0
"""Beyond a call's own time, which the hooks' process keeps."""
READ_BYTES = 262_144
MAX_WAITING = 512
MAX_OF_ONE = 32
"""Calls of one binding, waiting or under way."""
MAX_HELD = 128
MAX_HELD_OF_ONE = 16
"""Bodies that are held whole for hooks."""

NOT_THERE = "the hooks' process is not running"


class HookFailed(Exception):
    """No answer of a hook could be had."""


class HookDenied(Exception):
    """A hook refused; the text is its reason."""


class HookLink:
    """Connects when the first call comes, and anew whenever the process was replaced.

    `way` names the process's socket; empty: there is none. `spawn` owns what reads from it.
    """

    def __init__(
        self, way: str, call_seconds: float, spawn: Callable[[Coroutine[Any, Any, None]], None]
    ) -> None:
        self._way = way
        self._seconds = call_seconds + GRACE_SECONDS
        self._spawn = spawn
        self._room = asyncio.Semaphore(MAX_CALLS)
        self._connecting = asyncio.Lock()
        self._sock: socket.socket | None = None
        self._writing = asyncio.Lock()
        self._catalog: dict[str, HookInfo] = {}
        self._waiting: dict[int, asyncio.Future[Result]] = {}
        self._of: Counter[str] = Counter()
        self._held: dict[object, str] = {}
        self._last_id = 0
        self._log = log.get("egress.hooks")

    def known(self, name: str) -> tuple[Stage, ...] | None:
        """Return what a hook looks at, by what was told last; None where nothing was told."""
        info = self._catalog.get(name)
        return None if info is None else info.stages

    def reserve(self, owner: object, binding: str) -> bool:
        """Say whether a body may be held for hooks; `owner` is to `release` it."""
        held = self._held
        if owner not in held:
            of_one = sum(1 for other in held.values() if other == binding)
            if len(held) >= MAX_HELD or of_one >= MAX_HELD_OF_ONE:
                return False
            held[owner] = binding
        return True

    def release(self, owner: object) -> None:
        """Let go of what was reserved. No-op when nothing was."""
        self._held.pop(owner, None)

    async def stages(self, name: str) -> tuple[Stage, ...]:
        """Return what a hook looks at; HookFailed when it is not there."""
        await self._connected()
        info = self._catalog.get(name)
        if info is None or not info.stages:
            raise HookFailed("there is no such hook, or no version that works")
        return info.stages

    async def call(self, binding: str, make: Callable[[int], Call]) -> Result:
        """Make a call for a binding and return what came of it; HookDenied, HookFailed."""
        if len(self._waiting) >= MAX_WAITING or self._of[binding] >= MAX_OF_ONE:
            raise HookFailed("too many calls of hooks are under way")
        self._last_id += 1
        call = make(self._last_id)
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting[call.id] = answer
        self._of[binding] += 1
        try:
            async with asyncio.timeout(self._seconds), self._room:
                await self._send(call, answer)
                result = await answer
        except TimeoutError:
            raise HookFailed("it did not answer in time") from None
        finally:
            del self._waiting[call.id]
            self._of[binding] -= 1
            if not self._of[binding]:
                del self._of[binding]
        if isinstance(result, Denied):
            raise HookDenied(result.reason)
        if isinstance(result, Failed):
            raise HookFailed(result.reason)
        return result

    async def _send(self, call: Call, answer: asyncio.Future[Result]) -> None:
        try:
            data = frame(call)
        except ValueError:
            raise HookFailed("the request is too large for a hook") from None
        sock = await self._connected()
        async with self._writing:
            if answer.done():
                return
            try:
                await asyncio.get_running_loop().sock_sendall(sock, data)
            except asyncio.CancelledError:
                self._lose(sock)  # part of a frame may be out
                raise
            except OSError:
                self._lose(sock)
                raise HookFailed(NOT_THERE) from None

    async def _connected(self) -> socket.socket:
        async with self._connecting:
            if self._sock is None:
                self._sock = await self._connect()
            return self._sock

    async def _connect(self) -> socket.socket:
        """Return a connection whose catalog has come."""
        if not self._way:
            raise HookFailed("hooks are off: no hooks' process is set up here")
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        frames = Frames()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await loop.sock_connect(sock, self._way)
                while not self._take(await loop.sock_recv(sock, READ_BYTES), frames):
                    pass
        except (OSError, TimeoutError, ValueError, msgspec.MsgspecError):
            sock.close()
            raise HookFailed(NOT_THERE) from None
        except BaseException:
            sock.close()
            raise
        self._spawn(self._read(sock, frames))
        return sock

    async def _read(self, sock: socket.socket, frames: Frames) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._take(await loop.sock_recv(sock, READ_BYTES), frames)
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            self._log.warning("the hooks' process is gone", error=type(error).__name__)
        finally:
            self._lose(sock)
            sock.close()

    def _take(self, data: bytes, frames: Frames) -> bool:
        """Act on what came; say whether a catalog was in it."""
        if not data:
            raise ConnectionResetError
        told = False
        for payload in frames.take(data):
            message = decode_from_hooks(payload)
            if isinstance(message, Catalog):
                self._catalog = {one.name: one for one in message.hooks[:MAX_HOOKS]}
                told = True
            else:
                waiting = self._waiting.get(message.id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
        return told

    def _lose(self, sock: socket.socket) -> None:
        """Let go of a connection; whoever waits for an answer on it gets none."""
        if self._sock is not sock:
            return
        self._sock = None
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        for number, waiting in self._waiting.items():
            if not waiting.done():
                reason = "the hooks' process ended during the call"
                waiting.set_result(Failed(id=number, reason=reason))
