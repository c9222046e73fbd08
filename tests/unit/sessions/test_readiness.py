"""What is wished of each tier is asked again whenever it is wanted, whatever another tier says."""

import asyncio

from handiwork.config import SandboxSettings
from handiwork.model.errors import SandboxUnavailableError
from handiwork.sessions.readiness import keep_ready
from session_world import until


class Tier:
    def __init__(self, tier: str, error: Exception | None = None) -> None:
        self.tier = tier
        self.error = error
        self.asked = 0

    async def prepare(self, wishes: object) -> None:
        self.asked += 1
        if self.error:
            raise self.error


async def test_one_that_fails_keeps_no_other_from_it_and_is_asked_again():
    bad, good = Tier("namespace", SandboxUnavailableError("no room")), Tier("gvisor")
    wanted = asyncio.Event()
    task = asyncio.create_task(keep_ready([bad, good], SandboxSettings(), wanted))
    try:
        await until(lambda: good.asked == 1)
        assert bad.asked == 1
        wanted.set()
        await until(lambda: good.asked == 2)
        assert bad.asked == 2
    finally:
        task.cancel()
        await asyncio.wait([task])
