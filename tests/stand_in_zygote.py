"""A zygote whose cells are played by the test: each guest is the other end of a cell's socket."""

import asyncio
import contextlib
import json
import socket
import struct
from typing import Any, Self

from handiwork.sandboxes.isolate.zygotes import Cause, End, Shape


class Guest:
    """The guest's end."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._heard = b""

    def say(self, *frames: object) -> None:
        for frame in frames:
            text = json.dumps(frame, separators=(",", ":")).encode()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.socket.sendall(struct.pack("<I", len(text)) + text)

    async def heard(self) -> Any:
        """Return the next frame of the host."""
        (length,) = struct.unpack("<I", await self._read(4))
        return json.loads(await self._read(length))

    async def _read(self, count: int) -> bytes:
        while len(self._heard) < count:
            data = await asyncio.to_thread(self.socket.recv, 65536)
            if not data:
                raise EOFError
            self._heard += data
        data, self._heard = self._heard[:count], self._heard[count:]
        return data


class StandInZygote:
    """Has the verbs that a cell uses of its zygote; `asked` is what was asked of it."""

    shape = Shape()

    def __init__(self) -> None:
        self.guests: list[Guest] = []
        self.asked: list[tuple[Any, ...]] = []
        self._ends: dict[int, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for guest in self.guests:
            guest.socket.close()

    async def fork(self, ended: Any) -> tuple[int, socket.socket]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.settimeout(20)
        self.guests.append(Guest(theirs))
        number = len(self.guests)
        self._ends[number] = ended
        return number, ours

    def watch(self, cell: int, *, cpu_seconds: float, wall_seconds: float) -> None:
        self.asked.append(("watch", cell, cpu_seconds, wall_seconds))

    def unwatch(self, cell: int) -> None:
        self.asked.append(("unwatch", cell))

    def end(self, cell: int) -> None:
        self.asked.append(("end", cell))
        self.end_of(cell, End(Cause.DEMAND, 137, 0.0))

    def end_of(self, cell: int, end: Any) -> None:
        """Tell whose it was that a cell ended."""
        self._ends.pop(cell)(end)
