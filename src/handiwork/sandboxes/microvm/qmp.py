"""The monitor of one QEMU: one command at a time, each with a deadline and an answer of bounded size.

QEMU is only half trusted: a guest that broke into it could say anything here.
"""

import asyncio
import json
import socket
from typing import Any

from handiwork.model.errors import SandboxUnavailableError

LINE_BYTES = 262_144
ANSWER_SECONDS = 10.0


class Monitor:
    """Takes over one end of a connected socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._unread = b""
        self._turn = asyncio.Lock()
        self._greeted = False

    def close(self) -> None:
        """Close the connection. No-op when it is closed."""
        self._socket.close()

    async def run(self, command: str, descriptor: int | None = None, **arguments: Any) -> Any:
        """Run a command, passing a descriptor with it; SandboxUnavailableError when it fails."""
        try:
            async with self._turn, asyncio.timeout(ANSWER_SECONDS):
                if not self._greeted:
                    await self._line()
                    await self._run("qmp_capabilities", {}, None)
                    self._greeted = True
                return await self._run(command, arguments, descriptor)
        except (OSError, ValueError, TimeoutError) as error:
            raise SandboxUnavailableError(
                f"QEMU did not do {command}: {str(error) or type(error).__name__}"
            ) from error

    async def _run(self, command: str, arguments: dict[str, Any], descriptor: int | None) -> Any:
        text = json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"
        if descriptor is not None:
            # The descriptor goes with the first byte, and a socket this empty takes all of it.
            socket.send_fds(self._socket, [text[:1]], [descriptor])
            text = text[1:]
        await self._loop.sock_sendall(self._socket, text)
        while True:
            answer = json.loads(await self._line())
            if not isinstance(answer, dict) or "error" in answer:
                raise ValueError(f"it answered {str(answer)[:300]}")
            if "return" in answer:
                return answer["return"]

    async def _line(self) -> bytes:
        while b"\n" not in self._unread:
            if len(self._unread) > LINE_BYTES:
                raise ValueError("an answer without an end")
            more = await self._loop.sock_recv(self._socket, 65_536)
            if not more:
                raise ConnectionResetError("it is gone")
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line
