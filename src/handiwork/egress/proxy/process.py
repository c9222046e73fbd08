"""The proxy process: follows its control channel, serves bindings, ends with the channel."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from handiwork.egress.audit import AuditWriter
from handiwork.egress.control import (
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
    Request,
    SealKey,
    Start,
    Update,
)
from handiwork.egress.proxy.binding import LiveBinding, Plane
from handiwork.egress.proxy.dial import Dialer
from handiwork.egress.proxy.hook_link import HookLink
from handiwork.egress.secrets import Opener
from handiwork.model.audit import AuditRecord
from handiwork.model.errors import ConfigError, HandiworkError
from handiwork.model.ids import new_id
from handiwork.observe import log

SWEEP_SECONDS = 1.0
FLUSH_SECONDS = 0.1
AUDIT_CHAIN = "egress"

_decode_request = msgspec.json.Decoder(Request).decode


class ProxyProcess:
    """Serves what the control plane opens; `run` returns when the channel ends."""

    def __init__(self, now: Callable[[], datetime], clock: Callable[[], float]) -> None:
        self._now = now
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._bindings: dict[str, LiveBinding] = {}
        self._plane: Plane | None = None
        self._audit: AuditWriter | None = None
        self._ended = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._channel: Channel | None = None
        self._id_prefix = new_id("aud", os.urandom(10))
        self._records = 0
        self._log = log.get("egress.proxy")

    async def run(self, control: socket.socket) -> None:
        """Serve until the control channel ends; then every connection is dropped."""
        self._loop.set_exception_handler(self._unexpected)
        async with self._tasks:
            self._channel = Channel(control, self._received, self._ended.set)
            timers = [
                self._tasks.create_task(self._every(SWEEP_SECONDS, self._sweep)),
                self._tasks.create_task(self._every(FLUSH_SECONDS, self._flush)),
            ]
            await self._ended.wait()
            for binding in self._bindings.values():
                binding.close()
            for timer in timers:
                timer.cancel()
            if self._audit is not None:
                self._audit.close()
            # Dials and lookups that are under way have nobody to answer to.
            os._exit(0)

    def stop(self) -> None:
        """End as if the channel had ended."""
        self._ended.set()

    def _received(self, payload: bytes, descriptors: list[int]) -> None:
        message = _decode_request(payload)
        try:
            reply = self._obey(message, descriptors)
        except ConfigError as error:
            reply = Refused(id=message.id, error=str(error), config=True)
        except (HandiworkError, OSError) as error:
            reply = Refused(id=message.id, error=str(error))
        finally:
            for number in descriptors:
                os.close(number)
        if self._channel is not None:
            self._channel.send(reply)

    def _obey(self, message: Request, descriptors: list[int]) -> Reply:
        if isinstance(message, Start):
            return self._start(message, descriptors)
        if isinstance(message, Ping):
            return Done(id=message.id)
        plane = self._plane
        if plane is None:
            raise ConfigError("the first message must be `start`")
        if isinstance(message, Open):
            return self._open(plane, message, descriptors)
        if isinstance(message, SealKey):
            return Key(id=message.id, public_key=plane.opener.public_key(message.tenant))
        return self._change(message)

    def _start(self, message: Start, descriptors: list[int]) -> Ready:
        if self._plane is not None:
            raise ConfigError("started already")
        settings = message.settings
        # Kept as long as this process lives: what it names is connected to anew when it must be.
        way = f"/proc/self/fd/{os.dup(descriptors[0])}" if descriptors else ""
        opener = Opener(Path(settings.keys))
        self._audit = AuditWriter(Path(settings.audit), AUDIT_CHAIN)
        self._plane = Plane(
            settings=settings,
            loop=self._loop,
            dialer=Dialer(settings),
            opener=opener,
            ca_root=opener.ca_root(),
            now=self._now,
            clock=self._clock,
            new_id=self._new_id,
            append=self._append,
            spawn=self._spawn,
            hooks=HookLink(way, settings.hook_seconds, self._spawn),
        )
        return Ready(id=message.id, pid=os.getpid())

    def _open(self, plane: Plane, message: Open, descriptors: list[int]) -> Opened:
        if len(descriptors) != 1:
            raise ConfigError("an `open` carries one listener")
        if message.binding.id in self._bindings:
            raise ConfigError(f"the binding {message.binding.id} is open already")
        if len(self._bindings) >= plane.settings.max_bindings:
            raise ConfigError(f"more than {plane.settings.max_bindings} bindings")
        listener = socket.socket(fileno=os.dup(descriptors[0]))
        try:
            binding = LiveBinding(plane, message.binding, message.grant, listener)
        except BaseException:
            listener.close()
            raise
        self._bindings[message.binding.id] = binding
        return Opened(id=message.id, ca_certificate=binding.ca_certificate)

    def _change(self, message: Update | Close) -> Done:
        if isinstance(message, Close):
            binding = self._bindings.pop(message.binding_id, None)
            if binding is not None:
                binding.close()
        else:
            live = self._bindings.get(message.binding_id)
            if live is None:
                raise ConfigError(f"the binding {message.binding_id} is not open")
            live.update(message.grant)
        return Done(id=message.id)

    def _new_id(self) -> str:
        """Return an id from this process's random part and a count: cheap, and unique."""
        self._records += 1
        return f"{self._id_prefix}{self._records:x}"

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.create_task(work)

    def _append(self, record: AuditRecord) -> None:
        if self._audit is None:
            return
        try:
            self._audit.append(record)
        except (OSError, ConfigError) as error:
            self._stop_unaudited(error)

    def _flush(self) -> None:
        if self._audit is None:
            return
        try:
            self._audit.flush()
        except (OSError, ConfigError) as error:
            self._stop_unaudited(error)

    def _stop_unaudited(self, error: OSError | ConfigError) -> None:
        """End now: what cannot be recorded must not happen."""
        self._log.error("the audit cannot be written; the proxy ends", reason=str(error))
        os._exit(1)

    def _sweep(self) -> None:
        now = self._loop.time()
        for binding in self._bindings.values():
            binding.sweep(now)

    async def _every(self, seconds: float, act: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(seconds)
            act()

    def _unexpected(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log by kind only: the text of an error could hold a guest's bytes or a secret."""
        error = context.get("exception")
        self._log.error("fault", where="event loop", error=type(error).__name__)


__all__ = ["AUDIT_CHAIN", "ProxyProcess", "ProxySettings"]
