"""One running machine: QEMU, its monitor, and what its three ports carry."""

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import cast

from handiwork.model.errors import ConfigError
from handiwork.model.sandbox import SandboxSpec
from handiwork.sandboxes.channel import Channel
from handiwork.sandboxes.host import HostProcess, launch
from handiwork.sandboxes.launched import HOSTNAME_BYTES
from handiwork.sandboxes.microvm import orders
from handiwork.sandboxes.microvm.control import Control
from handiwork.sandboxes.microvm.exits import Exits
from handiwork.sandboxes.microvm.qmp import Monitor

CONSOLE_LINES = 3
ENDING_SECONDS = 1.0
CONSOLE_BYTES = 1 << 20
CONSOLE_KEPT_BYTES = 8192


class Running:
    """Made by `start`; `stop` ends all of it. `leaf` is the name of its control groups."""

    def __init__(
        self,
        process: HostProcess,
        control: socket.socket,
        qmp: socket.socket,
        *,
        leaf: str,
        exit_path: str,
        woken: bool,
    ) -> None:
        self.process = process
        self.leaf = leaf
        self.control = Control(control)
        self.monitor = Monitor(qmp)
        self.console = Console()
        self.channel = Channel(
            lambda reason: process.terminate() if reason else None, greeted=woken
        )
        self.exits = Exits(exit_path, self.channel.end)

    async def claim(self, moment: orders.Moment, spec: SandboxSpec, seconds: float) -> None:
        """Make one that waits this sandbox, and wait until its agent serves; ConfigError, or gone."""
        if spec.exit is None or len(spec.hostname.encode()) > HOSTNAME_BYTES:
            raise ConfigError(
                f"a claim needs an exit, and a hostname of {HOSTNAME_BYTES} bytes at most"
            )
        self.exits.lead(spec.exit.socket_path)
        order = orders.claim(moment, spec.hostname, spec.exit.ca_certificate)
        await self.control.order(order, seconds)
        await self.channel.hello(seconds)

    async def stop(self) -> None:
        """End the machine and everything that waits for it."""
        self.channel.end()
        self.process.kill()
        await self.process.stop()
        self.control.close()
        self.monitor.close()
        self.exits.close()
        self.console.close()

    async def why(self) -> str:
        """Return what is known of the reason why the machine does not serve; printable and cut."""
        told = await self.control.last_words()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ENDING_SECONDS):
                await asyncio.shield(self.process.exited)
                await self.console.ended.wait()
        return told or self.console.told() or self.process.error_line()


class Console(asyncio.Protocol):
    """The end of what a machine's kernel says; past the limit nothing more is read of it."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self._end = b""
        self._left = CONSOLE_BYTES
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Keep the last of it."""
        self._end = (self._end + data)[-CONSOLE_KEPT_BYTES:]
        self._left -= len(data)
        if self._left < 0 and self._transport is not None:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that all of it was read."""
        self.ended.set()

    def close(self) -> None:
        """Close the connection. No-op when it is closed."""
        if self._transport is not None:
            self._transport.abort()

    def told(self) -> str:
        """Return the lines that say most: a panic's, else the last; printable and cut."""
        text = self._end.decode("utf-8", "replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        chosen = [line for line in lines if "handiwork-guest" in line or "panic" in line]
        told = " | ".join((chosen or lines)[-CONSOLE_LINES:])[-600:]
        return "".join(c if c.isprintable() else "?" for c in told)


async def start(argv: Sequence[str], leaf: str, exit_path: str, *, woken: bool) -> Running:
    """Start QEMU by its launcher's command line; UnsupportedError when it cannot start.

    `exit_path` is the egress socket, "" when nothing leaves; `woken`: its agent has said hello before.
    """
    with ExitStack() as theirs_stack, ExitStack() as ours_stack:
        ours, theirs = [], []
        for _ in range(5):
            one, other = socket.socketpair()
            ours.append(ours_stack.enter_context(one))
            theirs.append(theirs_stack.enter_context(other))
        process = launch(argv, *(one.fileno() for one in theirs))
        ours_stack.pop_all()
    control, channel, exit_, qmp, console = ours
    running = Running(process, control, qmp, leaf=leaf, exit_path=exit_path, woken=woken)
    try:
        await _attach(running.channel, channel)
        await _attach(running.exits, exit_)
        await _attach(running.console, console)
    except BaseException:
        await running.stop()
        raise
    return running


async def _attach(protocol: asyncio.Protocol, sock: socket.socket) -> None:
    sock.setblocking(False)
    await asyncio.get_running_loop().create_unix_connection(lambda: protocol, sock=sock)
