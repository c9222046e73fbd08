"""The control plane's side of the boundary: holds every listener, tells the proxy what it may do.

Bindings outlive proxies: a new proxy is given all of them again. Without a proxy, or when one does
not confirm a change in time, every way out refuses.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from handiwork.egress.control import (
    MAX_MESSAGE_BYTES,
    Channel,
    Close,
    Done,
    Key,
    Open,
    Opened,
    Ping,
    ProxySettings,
    Ready,
    Refused,
    Reply,
    SealKey,
    Start,
    Update,
)
from handiwork.egress.decide import compile_layers
from handiwork.egress.listeners import Listener, runtime_directory
from handiwork.egress.protocol import Boundary, EgressSocket
from handiwork.model.egress import EgressBinding, EgressGrant
from handiwork.model.errors import (
    ConfigError,
    ConflictError,
    NotFoundError,
    SandboxUnavailableError,
)
from handiwork.observe import log

HOOKS_SOCKET = "hooks.s"
_decode_reply = msgspec.json.Decoder(Reply).decode
_Answer = TypeVar("_Answer", bound=Reply)


class _Exit(msgspec.Struct):
    """A binding that is open: its grant as of now, and the listener we hold."""

    binding: EgressBinding
    grant: EgressGrant
    listener: Listener
    ca_certificate: str = ""


class EgressRegistry(Boundary):
    """Implements the boundary over the control channel of one proxy process at a time.

    `runtime` is a short path for the sockets. The owner of the processes calls `attach` with its
    end of the control socket of each new proxy; the end of that proxy is noticed by itself.
    `reply_seconds` bounds each wait for a proxy to be there and for its answer. With `hooks` there is
    a listener for the hooks' process too, whose address every proxy is given.
    """

    def __init__(
        self,
        runtime: Path,
        settings: ProxySettings,
        *,
        reply_seconds: float = 10.0,
        hooks: bool = False,
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._wants_hooks = hooks
        self.hooks: Listener | None = None
        self._reply_seconds = reply_seconds
        self._exits: dict[str, _Exit] = {}
        self._channel: Channel | None = None
        self._kill: Callable[[], None] = _nobody
        self._attached = asyncio.Event()
        self._waiting: dict[int, Callable[[Reply | None], None]] = {}
        self._last_id = 0
        self._log = log.get("egress.registry")

    async def __aenter__(self) -> Self:
        runtime_directory(self._runtime)
        for left in self._runtime.glob("*.s"):  # of a run that was killed
            left.unlink(missing_ok=True)
        if self._wants_hooks:
            self.hooks = Listener(self._runtime / HOOKS_SOCKET)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close_all()

    @property
    def attached(self) -> bool:
        """Say whether a proxy serves now."""
        return self._attached.is_set()

    def attach(self, sock: socket.socket, *, kill: Callable[[], None] | None = None) -> None:
        """Take the control socket of a new proxy and give it every open binding.

        `kill` must end that process at once, stopped or not; it is called when the proxy does not
        answer in time: one that only hung could serve an old grant before it sees the end.
        """
        self.detach()
        self._kill = kill or _nobody
        channel = Channel(sock, self._received, lambda: self._lost(channel))
        self._channel = channel
        self._start()
        for binding_id in list(self._exits):
            self._reopen(binding_id)

    def _start(self) -> None:
        message = Start(id=self._new_id(), settings=self._settings)
        if self.hooks is None:
            self._send(message, self._started)
            return
        number = os.open(self.hooks.path, os.O_PATH | os.O_CLOEXEC)
        try:
            self._send(message, self._started, (number,))
        finally:
            os.close(number)

    def detach(self) -> None:
        """Let go of the proxy, which ends it; every way out refuses from now on."""
        if self._channel is not None:
            self._channel.close()

    def close_all(self) -> None:
        """Close every way out and let go of the proxy."""
        self.detach()
        while self._exits:
            _, way = self._exits.popitem()
            way.listener.close()
        if self.hooks is not None:
            self.hooks.close()
            self.hooks = None

    async def open(self, binding: EgressBinding, grant: EgressGrant) -> EgressSocket:
        """Make the socket of a binding and hand it to the proxy.

        ConfigError for a bad grant, ConflictError for an id that is open, SandboxUnavailableError
        when no proxy took it in time.
        """
        compile_layers(grant.layers)
        if binding.id in self._exits:
            raise ConflictError(f"the egress binding {binding.id} is open already")
        await self._wait_attached()
        listener = Listener(self._runtime / f"{os.urandom(8).hex()}.s")
        way = self._exits[binding.id] = _Exit(binding, grant, listener)
        message = Open(id=self._new_id(), binding=binding, grant=grant)
        try:
            self._serve(way, await self._ask(message, Opened, (listener.fileno(),)))
        except BaseException:
            self._drop(binding.id)
            raise
        return EgressSocket(
            binding=binding, path=str(listener.path), ca_certificate=way.ca_certificate
        )

    async def update(self, binding_id: str, grant: EgressGrant) -> None:
        """Replace what a live binding may do; holds for the next request on every connection.

        Without a proxy the new grant is kept for the next one. A proxy that does not confirm in
        time is killed, so that the old grant never outlives this call. ConfigError, as for a grant
        that the proxy refuses, changes nothing.
        """
        compile_layers(grant.layers)
        way = self._exits.get(binding_id)
        if way is None:
            raise NotFoundError(f"no egress binding {binding_id} is open")
        before, way.grant = way.grant, grant
        if self._channel is None:
            return
        try:
            await self._ask(Update(id=self._new_id(), binding_id=binding_id, grant=grant), Done)
        except ConfigError:
            if way.grant is grant:
                way.grant = before
            raise

    async def close(self, binding_id: str) -> None:
        """Close the socket and every connection that came through it. No-op when it is not open."""
        way = self._exits.pop(binding_id, None)
        if way is None:
            return
        way.listener.close()
        if self._channel is not None:
            with contextlib.suppress(SandboxUnavailableError):
                await self._ask(Close(id=self._new_id(), binding_id=binding_id), Done)

    async def seal_key(self, tenant: str) -> bytes:
        """Return the X25519 public key (32 bytes) that secrets of the tenant are sealed to."""
        await self._wait_attached()
        return (await self._ask(SealKey(id=self._new_id(), tenant=tenant), Key)).public_key

    async def ping(self) -> None:
        """Return when the proxy answers; one that does not in time is killed."""
        await self._wait_attached()
        await self._ask(Ping(id=self._new_id()), Done)

    @contextlib.asynccontextmanager
    async def bind_tool(self, binding: EgressBinding, grant: EgressGrant) -> AsyncIterator[int]:
        """Open a way out for one tool call and yield an O_PATH descriptor of its socket.

        Whoever holds the descriptor connects to `/proc/self/fd/N`, as often as it likes, until the
        block ends; no path is told. The descriptor is close-on-exec.
        """
        way = await self.open(binding, grant)
        try:
            number = os.open(way.path, os.O_PATH | os.O_CLOEXEC)
            try:
                yield number
            finally:
                os.close(number)
        finally:
            await self.close(binding.id)

    async def _wait_attached(self) -> None:
        try:
            async with asyncio.timeout(self._reply_seconds):
                await self._attached.wait()
        except TimeoutError:
            raise SandboxUnavailableError(
                "the egress proxy is not running; see the supervisor's log for why"
            ) from None

    async def _ask(
        self,
        message: Open | Update | Close | SealKey | Ping,
        kind: type[_Answer],
        descriptors: tuple[int, ...] = (),
    ) -> _Answer:
        future: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()

        def answered(reply: Reply | None) -> None:
            if not future.done():
                future.set_result(reply)

        self._send(message, answered, descriptors)
        try:
            async with asyncio.timeout(self._reply_seconds):
                reply = await future
        except TimeoutError:
            self._kill()
            self.detach()
            raise SandboxUnavailableError(
                "the egress proxy did not answer in time and was let go"
            ) from None
        finally:
            self._waiting.pop(message.id, None)
        if isinstance(reply, kind):
            return reply
        if isinstance(reply, Refused):
            raise (ConfigError if reply.config else SandboxUnavailableError)(reply.error)
        raise SandboxUnavailableError("the egress proxy ended before it answered")

    def _send(
        self,
        message: Start | Open | Update | Close | SealKey | Ping,
        then: Callable[[Reply | None], None],
        descriptors: tuple[int, ...] = (),
    ) -> None:
        if self._channel is None:
            then(None)
            return
        self._waiting[message.id] = then
        try:
            self._channel.send(message, descriptors)
        except ValueError:
            self._waiting.pop(message.id, None)
            raise ConfigError(
                f"the grant is over {MAX_MESSAGE_BYTES} bytes: use fewer or smaller policies"
            ) from None

    def _received(self, payload: bytes, descriptors: list[int]) -> None:
        for number in descriptors:
            os.close(number)
        reply = _decode_reply(payload)
        then = self._waiting.pop(reply.id, None)
        if then is not None:
            then(reply)

    def _started(self, reply: Reply | None) -> None:
        if isinstance(reply, Ready):
            self._log.info("proxy attached", proxy=reply.pid, bindings=len(self._exits))
            self._attached.set()
            return
        if isinstance(reply, Refused):
            self._log.error("the proxy could not start", reason=reply.error)
        self.detach()

    def _reopen(self, binding_id: str) -> None:
        way = self._exits[binding_id]

        def answered(reply: Reply | None) -> None:
            if self._exits.get(binding_id) is not way:
                return
            if isinstance(reply, Opened):
                self._serve(way, reply)
            elif isinstance(reply, Refused):
                self._log.error("a binding refuses all", binding=binding_id, reason=reply.error)

        message = Open(id=self._new_id(), binding=way.binding, grant=way.grant)
        self._send(message, answered, (way.listener.fileno(),))

    def _serve(self, way: _Exit, reply: Opened) -> None:
        way.ca_certificate = reply.ca_certificate
        way.listener.leave_to_proxy()

    def _drop(self, binding_id: str) -> None:
        way = self._exits.pop(binding_id, None)
        if way is not None:
            way.listener.close()
            self._send(Close(id=self._new_id(), binding_id=binding_id), _ignore)

    def _lost(self, channel: Channel) -> None:
        if self._channel is not channel:
            return
        self._channel = None
        self._attached.clear()
        for way in self._exits.values():
            way.listener.refuse()
        waiting, self._waiting = self._waiting, {}
        for then in waiting.values():
            then(None)
        self._log.warning("no proxy: every way out refuses", bindings=len(self._exits))

    def _new_id(self) -> int:
        self._last_id += 1
        return self._last_id


def _nobody() -> None:
    """Stand for the end of a process that is somebody else's to end."""


def _ignore(_: Reply | None) -> None:
    """Take an answer that nobody waits for."""
