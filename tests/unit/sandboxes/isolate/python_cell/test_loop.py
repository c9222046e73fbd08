"""The event loop of a cell: its clock is time, its only descriptor the host."""

import asyncio

import pytest

from handiwork.sandboxes.isolate.python_cell.calls import Calls
from handiwork.sandboxes.isolate.python_cell.loop import Loop, StuckError
from handiwork.sandboxes.isolate.python_cell.outbox import Outbox


class Host:
    """Answers the first call that it was sent when it is read, or sleeps as long as it is told."""

    def __init__(self):
        self.waited = []
        self.sent = 0

    def send(self, text):
        self.sent += 1

    def receive(self, seconds):
        self.waited.append(seconds)
        if self.sent:
            return {"t": "settled", "s": [{"id": 1, "ok": True, "v": "answer"}]}
        return None


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def loop(host):
    outbox = Outbox(host)
    made = Loop(host, outbox, Calls(host, outbox))
    yield made
    made.close()


def test_timers_and_tasks(loop, host):
    async def work():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(0.001 * n, n)) for n in range(3)]
        return [task.result() for task in tasks]

    assert loop.run_until_complete(work()) == [0, 1, 2]
    assert None not in host.waited


def test_answers_of_the_host(loop):
    async def work():
        return await loop._calls.call("codemode.a", {})

    assert loop.run_until_complete(work()) == "answer"


def test_what_nothing_will_bring_about_is_told_at_once(loop, host):
    async def work():
        await asyncio.Event().wait()

    with pytest.raises(StuckError, match="this never ends"):
        loop.run_until_complete(work())
    assert host.waited == [0]


def test_what_is_left_behind_says_nothing(host, capfd):
    outbox = Outbox(host)
    loop = Loop(host, outbox, Calls(host, outbox))

    async def work():
        loop.left = loop.create_task(asyncio.sleep(60))

    loop.run_until_complete(work())
    loop.close()
    del loop.left
    assert capfd.readouterr() == ("", "")
