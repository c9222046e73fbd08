"""The count of a memory limit's kills over a channel: only what comes after counts."""

import asyncio

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes import frames
from handiwork.sandboxes.guest_client import GuestSandbox
from stand_in_agent import connected


@pytest.mark.parametrize(("before", "now", "rose"), [(0, 0, False), (3, 3, False), (3, 4, True)])
async def test_what_comes_after_counts(before: int, now: int, rose: bool) -> None:
    async with connected() as (channel, agent):
        kills = await GuestSandbox("sbx_standin000", channel, {}).memory_kills()
        first, _ = await agent.next(frames.Kills)
        asked = asyncio.ensure_future(kills.rose())
        second, _ = await agent.next(frames.Kills)
        agent.send(first, frames.End(before))
        agent.send(second, frames.End(now))
        assert await asked is rose
        assert not channel.requests


async def test_one_that_nobody_asks_again_is_left_alone() -> None:
    async with connected() as (channel, agent):
        await GuestSandbox("sbx_standin000", channel, {}).memory_kills()
        (request,) = channel.requests.values()
        request_id, _ = await agent.next(frames.Kills)
        agent.send(request_id, frames.End(1))
        await asyncio.wait_for(request.done, 5)
        assert not channel.requests


async def test_a_sandbox_that_is_gone_says_so() -> None:
    async with connected() as (channel, _):
        kills = await GuestSandbox("sbx_standin000", channel, {}).memory_kills()
        channel.end("it broke")
        with pytest.raises(SandboxUnavailableError, match="it broke"):
            await kills.rose()
