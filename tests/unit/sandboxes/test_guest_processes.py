"""The table of processes over a channel: what a guest tells is checked, cut and made printable."""

import asyncio

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes import frames
from handiwork.sandboxes.guest_processes import survey
from stand_in_agent import connected

PROCESS = frames.Process(
    pid=7,
    parent=1,
    uid=5,
    threads=2,
    state=ord("S"),
    tree=3,
    cpu_us=1_500_000,
    rss_kib=9,
    age_ms=2500,
    command=b"sleep\x005\x00",
)
LISTENER = frames.Listener(pid=7, uid=5, family=4, port=80, address=b"127.0.0.1")


@pytest.fixture
async def told():
    async with connected() as (channel, agent):

        async def ask(*answer, limit=10):
            call = asyncio.ensure_future(survey(channel, limit))
            request_id, asked = await agent.next(frames.Processes)
            assert asked.limit == max(1, limit)
            agent.send(request_id, *answer)
            return await call

        yield ask


def process(**changed):
    return frames.Running((frames.Process(**{**as_dict(PROCESS), **changed}),))


def as_dict(struct):
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


async def test_what_is_told(told):
    other = process(pid=2, command=b"a\x1b[31m\xff" + b"b" * 2000)
    table = await told(
        frames.Running((PROCESS,)), other, frames.Listeners((LISTENER,)), frames.End(2)
    )
    first, second = table.processes
    assert (second.pid, second.state, second.command) == (7, "S", "sleep 5")
    assert (second.cpu_seconds, second.age_seconds, second.memory_kib) == (1.5, 2.5, 9)
    assert first.command.startswith("a?[31m\ufffdbbb")
    assert len(first.command) == 1024
    assert [(one.pid, one.address, one.port) for one in table.listeners] == [(7, "127.0.0.1", 80)]


async def test_none_at_all(told):
    table = await told(frames.End(0), limit=0)
    assert (table.processes, table.listeners) == ((), ())


@pytest.mark.parametrize(
    "answer",
    [
        process(state=0),
        process(state=ord("!")),
        process(state=0x10000),
        frames.Running((PROCESS,) * 11),
        frames.Listeners((frames.Listener(7, 5, 4, 80, b"::1"),)),
        frames.Listeners((frames.Listener(7, 5, 5, 80, b"127.0.0.1"),)),
        frames.Listeners((frames.Listener(7, 5, 4, 65_536, b"127.0.0.1"),)),
        frames.Listeners((frames.Listener(7, 5, 4, 80, b"\xff"),)),
        frames.Body(b"x"),
    ],
)
async def test_what_cannot_be_ends_the_channel(told, answer):
    with pytest.raises(SandboxUnavailableError, match="broke the protocol"):
        await told(answer)


async def test_listeners_are_bounded(told):
    with pytest.raises(SandboxUnavailableError, match="broke the protocol"):
        await told(*[frames.Listeners((LISTENER,) * 1000)] * 9)
