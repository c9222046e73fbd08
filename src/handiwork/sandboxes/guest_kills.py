"""Whether the memory limit kills processes of a sandbox, as its agent counts them."""

from typing import cast

from handiwork.sandboxes import frames
from handiwork.sandboxes.channel import Channel, Request, finish

COUNT_SECONDS = 60.0
"""How long the agent may take to tell a number, before its sandbox is taken for broken."""


class GuestKills:
    """The count of kills when it was made, to be held against a later one."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def open(self) -> None:
        """Ask for the count. Its answer is not waited for: the agent takes what follows after it."""
        self._before = await self._ask()

    async def rose(self) -> bool:
        """Say whether the memory limit killed a process since."""
        request = await self._ask()
        before = await finish(self._before, frames.Cancel())
        now = await finish(request, frames.Cancel())
        return cast("frames.End", now).total > cast("frames.End", before).total

    async def _ask(self) -> Request:
        return await self._channel.open(frames.Kills(), frames.End, seconds=COUNT_SECONDS)
