"""A terminal in a sandbox as its user sees it: bytes both ways, a size, an end."""

from collections.abc import AsyncIterator

import msgspec
from websockets.asyncio.client import ClientConnection

from handiwork.model.errors import SandboxUnavailableError
from handiwork.model.sandbox import ExecResult, TerminalSize
from handiwork.model.wire import ExecFrame, TerminalBody, TerminalOrder, error_of

PIECE_BYTES = 64 * 1024


class Terminal:
    """A command on a terminal: `output()` once, then `wait()`."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._result: ExecResult | None = None

    async def open(self, body: TerminalBody) -> None:
        """Say what to run."""
        await self._socket.send(msgspec.json.encode(body).decode())

    async def output(self) -> AsyncIterator[bytes]:
        """Yield what it shows, as it comes."""
        async for message in self._socket:
            if isinstance(message, bytes):
                yield message
                continue
            frame = msgspec.json.decode(message, type=ExecFrame)
            if frame.error is not None:
                raise error_of(frame.error)
            self._result = frame.result

    async def write(self, data: bytes | str) -> None:
        """Type; waits while the command does not read."""
        typed = memoryview(data.encode() if isinstance(data, str) else data)
        for at in range(0, len(typed), PIECE_BYTES):
            await self._socket.send(bytes(typed[at : at + PIECE_BYTES]))

    async def resize(self, columns: int, rows: int) -> None:
        """Give it another size."""
        await self._order(TerminalOrder(resize=TerminalSize(columns=columns, rows=rows)))

    async def signal(self, number: int) -> None:
        """Signal its whole process tree."""
        await self._order(TerminalOrder(signal=number))

    async def wait(self) -> ExecResult:
        """Return how it ended, after what it still shows was dropped."""
        async for _piece in self.output():
            pass
        if self._result is None:
            raise SandboxUnavailableError("the control plane stopped before the command ended")
        return self._result

    async def _order(self, order: TerminalOrder) -> None:
        await self._socket.send(msgspec.json.encode(order).decode())
