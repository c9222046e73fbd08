"""The host's end of the control port: one order at a time, each answered."""

import asyncio
import socket

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.microvm import orders


class Control:
    """Takes over one end of a connected socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._unread = b""
        self._owed = False  # an answer, which no other order may take for its own

    def close(self) -> None:
        """Close the connection. No-op when it is closed."""
        self._socket.close()

    async def ready(self, seconds: float) -> None:
        """Wait until what was ordered, or the boot, is done; SandboxUnavailableError else."""
        try:
            async with asyncio.timeout(seconds):
                await self._ready()
        except TimeoutError:
            raise SandboxUnavailableError(
                f"the machine did not answer within {seconds:g} s"
            ) from None
        except (OSError, orders.OrderError) as error:
            raise SandboxUnavailableError(f"the machine is gone: {error}") from error

    async def order(self, order: bytes, seconds: float) -> None:
        """Send an order and wait until it is done; SandboxUnavailableError else, or for a busy guest.

        After one whose answer was not waited for no other is taken.
        """
        if self._owed:
            raise SandboxUnavailableError("the machine takes no order: it owes an answer")
        self._owed = True
        try:
            async with asyncio.timeout(seconds):
                await self._loop.sock_sendall(self._socket, order)
        except (OSError, TimeoutError) as error:
            raise SandboxUnavailableError(f"the machine takes no order: {error}") from error
        await self.ready(seconds)

    async def settle(self, seconds: float) -> None:
        """Wait for an answer that is still owed, whatever it says; SandboxUnavailableError when none comes."""
        if not self._owed:
            return
        try:
            await self.ready(seconds)
        except SandboxUnavailableError:
            if self._owed:
                raise

    async def last_words(self) -> str:
        """Return why the machine ended, as far as it said so before; printable and cut."""
        try:
            async with asyncio.timeout(1):
                await self._ready()
        except SandboxUnavailableError as error:
            return str(error)
        except (OSError, TimeoutError, orders.OrderError):
            pass
        return ""

    async def _ready(self) -> None:
        kind, length = orders.answer_head(await self._read(orders.HEAD_BYTES))
        self._owed = False
        if kind == orders.ENDED:
            text = (await self._read(length)).decode("utf-8", "replace").strip()
            raise SandboxUnavailableError("".join(c if c.isprintable() else "?" for c in text))
        if kind == orders.BUSY:
            raise SandboxUnavailableError("a process in the machine did not stand still in time")

    async def _read(self, size: int) -> bytes:
        while len(self._unread) < size:
            more = await self._loop.sock_recv(self._socket, 4096)
            if not more:
                raise ConnectionResetError("it said nothing")
            self._unread += more
        data, self._unread = self._unread[:size], self._unread[size:]
        return data
