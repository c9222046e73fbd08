"""Processes of a sandbox that outlive the call that started them."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

import msgspec

from handiwork.client.link import Link, Query, lines, part
from handiwork.model.errors import ConfigError, SandboxUnavailableError
from handiwork.model.process import ProcessDetail, ProcessRecord
from handiwork.model.wire import Listing, LogFrame, ProcessBody, SignalBody, error_of

QUIET_SECONDS = 7 * 24 * 3600.0
"""How long nothing may be told of what is followed or watched."""

Command = str | Sequence[str]


class Processes:
    """`box.processes`: start, list, look, logs, signal, remove."""

    def __init__(self, link: Link, path: str) -> None:
        self._link = link
        self._path = path

    async def start(
        self,
        command: Command,
        *,
        cwd: str = "/workspace",
        env: Mapping[str, str] | None = None,
        user: str = "root",
    ) -> ProcessRecord:
        """Start one (a text is run by the shell); it lives as long as its sandbox does."""
        body = ProcessBody(argv=argv_of(command), cwd=cwd, env=env or {}, user=user)
        return await self._link.send("POST", self._path, ProcessRecord, body)

    async def list(self) -> list[ProcessRecord]:
        """List them, newest first, also those that ended."""
        return list((await self._link.get(self._path, Listing[ProcessRecord])).data)

    async def get(self, process_id: str) -> ProcessDetail:
        """Tell of one, and where it listens."""
        return await self._link.get(self._one(process_id), ProcessDetail)

    async def logs(
        self, process_id: str, *, after: int = 0, follow: bool = False
    ) -> AsyncGenerator[LogFrame, None]:
        """Yield what it wrote from a position on, as far as it is kept; last how it stands."""
        query: Query = {"after": after, "follow": follow}
        async with self._link.stream(
            "GET", f"{self._one(process_id)}/logs", query=query, seconds=QUIET_SECONDS
        ) as chunks:
            async for frame in _frames(chunks):
                if frame.error is not None:
                    raise error_of(frame.error)
                yield frame
                if frame.process is not None:
                    return
        raise SandboxUnavailableError("the control plane stopped before the log ended")

    async def signal(self, process_id: str, number: int) -> None:
        """Signal it and all it started."""
        path = f"{self._one(process_id)}/signal"
        await self._link.send("POST", path, type(None), SignalBody(signal=number))

    async def remove(self, process_id: str) -> None:
        """Kill it with all it started, and forget it and its log."""
        await self._link.send("DELETE", self._one(process_id), type(None))

    def _one(self, process_id: str) -> str:
        return f"{self._path}/{part(process_id)}"


def argv_of(command: Command) -> tuple[str, ...]:
    """Return the arguments of a command; a text is run by the shell. ConfigError when it is none."""
    argv = ("/bin/sh", "-c", command) if isinstance(command, str) else tuple(command)
    if not argv or not all(isinstance(word, str) for word in argv):
        raise ConfigError("the command must be a text or a list of texts")
    return argv


async def _frames(chunks: AsyncIterator[bytes]) -> AsyncGenerator[LogFrame, None]:
    async for line in lines(chunks):
        try:
            yield msgspec.json.decode(line, type=LogFrame)
        except msgspec.DecodeError:
            raise SandboxUnavailableError("the stream of the log was cut off") from None
