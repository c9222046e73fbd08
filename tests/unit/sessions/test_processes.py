"""Processes that outlive their call: followed, bounded, told to be gone when they are."""

import asyncio
from datetime import UTC, datetime

import pytest

from api_stand_in import PretendSandbox
from handiwork.model.errors import (
    ConflictError,
    GuestError,
    NotFoundError,
    SandboxUnavailableError,
)
from handiwork.model.process import ProcessRecord, ProcessState
from handiwork.model.sandbox import ExecRequest, ExecResult
from handiwork.sessions import processes as module
from handiwork.sessions.processes import Processes
from handiwork.testing.store import MemoryStore

NOW = datetime(2026, 3, 1, tzinfo=UTC)
BOX = "sbx_pretend0000"


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
async def kept(store):
    async with Processes(store=store, clock=lambda: NOW) as found:
        yield found


def request(*argv):
    return ExecRequest(argv=argv, timeout_seconds=None, output_limit_bytes=0)


async def read(processes, process_id, **options):
    """Return the bytes of a log, and the record at its end."""
    data = b""
    async for one in processes.logs(BOX, process_id, **options):
        if isinstance(one, ProcessRecord):
            return data, one
        data += one.data
    raise AssertionError("a log without an end")


async def test_what_it_wrote_and_how_it_ended(kept, store):
    started = await kept.start(PretendSandbox(BOX), request("echo", "a", "b"))
    assert (started.state, started.pid, started.sandbox_id) == (ProcessState.RUNNING, 7, BOX)
    data, ended = await read(kept, started.id, follow=True)
    assert data == b"abdone"
    assert (ended.state, ended.exit_code, ended.ended_at) == (ProcessState.EXITED, 0, NOW)
    assert await kept.get(BOX, started.id) == ended
    assert await kept.list(BOX) == [ended]
    assert (await read(kept, started.id, after=2))[0] == b"done"


async def test_a_failure_is_an_exit_code(kept):
    started = await kept.start(PretendSandbox(BOX), request("false"))
    assert (await read(kept, started.id, follow=True))[1].exit_code == 1


async def test_who_reads_without_following_does_not_wait(kept):
    started = await kept.start(PretendSandbox(BOX), request("sleep"))
    while not (await read(kept, started.id))[0]:
        await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0.01))])
    data, record = await read(kept, started.id)
    assert (data, record.state) == (b"sleeping", ProcessState.RUNNING)


async def test_it_is_signalled_and_then_no_more(kept):
    box = PretendSandbox(BOX)
    started = await kept.start(box, request("sleep"))
    await kept.signal(BOX, started.id, 15)
    await read(kept, started.id, follow=True)
    await kept.signal(BOX, started.id, 15)
    assert box.signals == [15]


async def test_what_cannot_be_started_takes_no_place(kept, store):
    class Refusing(PretendSandbox):
        async def start(self, request, *, stdin=False):
            raise GuestError("no such program", errno=2)

    for _ in range(module.RUNNING_LIMIT + 1):
        with pytest.raises(GuestError):
            await kept.start(Refusing(BOX), request("none"))
    assert await kept.list(BOX) == []


async def test_so_many_run_at_once(kept, monkeypatch):
    monkeypatch.setattr(module, "RUNNING_LIMIT", 2)
    box = PretendSandbox(BOX)
    first, _ = [await kept.start(box, request("sleep")) for _ in range(2)]
    with pytest.raises(ConflictError, match="2 processes"):
        await kept.start(box, request("sleep"))
    await kept.start(PretendSandbox("sbx_other"), request("sleep"))
    await kept.remove(BOX, first.id)
    await kept.start(box, request("sleep"))
    monkeypatch.setattr(module, "LOGS_LIMIT", 3)
    with pytest.raises(ConflictError, match="all sandboxes"):
        await kept.start(PretendSandbox("sbx_third"), request("sleep"))


async def test_the_oldest_that_ended_are_forgotten(kept, monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED", 2)
    box, ids = PretendSandbox(BOX), []
    for _ in range(4):
        started = await kept.start(box, request("false"))
        await read(kept, started.id, follow=True)
        ids.append(started.id)
    async with asyncio.timeout(30):  # the log's end is told before it is kept
        while len(await kept.list(BOX)) > 2:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)
    assert len(await kept.list(BOX)) == 2


async def test_leaving_lets_go_of_all_while_the_oldest_are_forgotten(store, monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED", 2)
    async with Processes(store=store, clock=lambda: NOW) as kept:
        for _ in range(6):
            await kept.start(PretendSandbox(BOX), request("sleep"))
    left = await store.processes.list(BOX)
    assert {one.state for one in left} == {ProcessState.LOST}


async def test_output_is_bounded_and_slowed(kept, monkeypatch):
    monkeypatch.setattr(module, "LOG_BYTES", 100_000)
    started = await kept.start(PretendSandbox(BOX), request("flood"))
    position = 0
    async for chunk in kept.logs(BOX, started.id, follow=True):
        if chunk.at > position:
            break  # what was written before is gone, and that can be seen
        position = chunk.at + len(chunk.data)
        await asyncio.sleep(0.05)
    assert len((await read(kept, started.id))[0]) <= 100_000
    await kept.remove(BOX, started.id)


async def test_removing_kills_and_forgets(kept):
    box = PretendSandbox(BOX)
    started = await kept.start(box, request("sleep"))
    await kept.remove(BOX, started.id)
    assert set(box.signals) == {9}
    with pytest.raises(NotFoundError):
        await kept.get(BOX, started.id)


async def test_another_sandboxes_process_is_none_of_its(kept):
    started = await kept.start(PretendSandbox(BOX), request("sleep"))
    for call in (
        kept.get("sbx_other", started.id),
        kept.signal("sbx_other", started.id, 9),
        kept.remove("sbx_other", started.id),
        anext(kept.logs("sbx_other", started.id)),
    ):
        with pytest.raises(NotFoundError):
            await call
    assert (await kept.get(BOX, started.id)).state is ProcessState.RUNNING


class Dying:
    """What a process is whose sandbox goes."""

    pid = 9

    def __init__(self):
        self.gone = asyncio.Event()

    async def output(self):
        yield "stdout", b"up"
        await self.gone.wait()
        raise SandboxUnavailableError("the sandbox is gone: it was closed")

    async def wait(self) -> ExecResult:
        raise SandboxUnavailableError("the sandbox is gone: it was closed")

    async def signal(self, number):
        """Do nothing."""


def holding(process):
    """Return a sandbox whose one process this is."""

    class Box(PretendSandbox):
        async def start(self, request, *, stdin=False):
            return process

    return Box(BOX)


async def test_what_does_not_die_is_told(kept, monkeypatch):
    monkeypatch.setattr(module, "KILL_SECONDS", 0.05)
    dying = Dying()
    started = await kept.start(holding(dying), request("serve"))
    with pytest.raises(SandboxUnavailableError, match="did not end"):
        await kept.remove(BOX, started.id)
    dying.gone.set()
    assert (await read(kept, started.id, follow=True))[1].state is ProcessState.LOST


async def test_one_whose_sandbox_goes_is_lost_and_its_log_is_kept(kept):
    dying = Dying()
    started = await kept.start(holding(dying), request("serve"))
    dying.gone.set()
    data, ended = await read(kept, started.id, follow=True)
    assert (data, ended.state, ended.exit_code) == (b"up", ProcessState.LOST, None)
    assert "ended with its sandbox" in ended.reason


async def test_after_a_stop_and_after_a_crash_it_is_told_to_be_gone(store):
    async with Processes(store=store, clock=lambda: NOW) as kept:
        stopped = await kept.start(PretendSandbox(BOX), request("sleep"))
    assert (await store.processes.get(stopped.id)).reason == "Handiwork was stopped"
    crashed = ProcessRecord(
        id="proc_crashed", sandbox_id=BOX, argv=("x",), cwd="/", user="root", pid=3, started_at=NOW
    )
    await store.processes.save(crashed)
    async with Processes(store=store, clock=lambda: NOW) as kept:
        await kept.adopt()
        found = await kept.get(BOX, "proc_crashed")
        assert (found.state, found.ended_at) == (ProcessState.LOST, NOW)
        assert "run of Handiwork" in found.reason
        with pytest.raises(NotFoundError, match="not kept any more"):
            await read(kept, "proc_crashed")
        detail = await kept.detail(PretendSandbox(BOX), "proc_crashed")
        assert detail.listeners == ()


async def test_where_it_listens(kept):
    started = await kept.start(PretendSandbox(BOX), request("sleep"))
    detail = await kept.detail(PretendSandbox(BOX), started.id)
    assert [(one.pid, one.port) for one in detail.listeners] == [(7, 80)]
