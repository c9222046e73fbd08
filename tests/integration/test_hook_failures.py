"""What goes wrong with hooks refuses, says why, and harms nobody else."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from egress_world import HOST, grant
from hook_files import HOOKS, REQUEST, ask, refused
from hook_world import HookWorld, hook_world


@pytest.fixture
async def here(tmp_path: Path):
    async with hook_world(tmp_path, HOOKS) as made:
        yield made


# What goes wrong refuses.


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("number", "returned a int, not None, Answer or Deny"),
        ("nonsense", "TypeError"),
        ("types", "not usable"),
        ("method", "changed the method"),
        ("raises", "KeyError at line 4 of raises.py"),
        ("leaves", "SystemExit at line 4 of leaves.py"),
        ("huge", "a body of more than"),
        ("hangs", "it took over 1 s"),
        ("clings", "it took over 1 s"),
        ("thread", "it took over 1 s"),
        ("dies", "ended during the call"),
        ("blocks", "ended during the call"),
        ("eats", "it used up the memory"),
        ("missing", "there is no such hook"),
    ],
)
async def test_a_hook_that_fails_refuses_and_the_next_request_works(
    here: HookWorld, name: str, why: str
) -> None:
    before = here.pid
    reason = await refused(here, name)
    assert why in reason
    assert "quotes" not in reason  # nothing of what was in the request
    if name in ("clings", "thread", "dies", "blocks", "eats"):
        await here.restarted(before)
    else:
        assert here.pid == before
    assert (await ask(here, here.hooking("plain")))[0] == 200


async def test_others_are_refused_and_not_let_through_while_one_blocks(here: HookWorld) -> None:
    before = here.pid
    async with asyncio.TaskGroup() as group:
        blocked = group.create_task(ask(here, here.hooking("blocks")))
        await asyncio.sleep(0.3)
        others = [group.create_task(ask(here, here.hooking("plain"))) for _ in range(3)]
        free = group.create_task(ask(here, grant(here.service())))
        assert (await free)[0] == 200  # who passes no hook notices nothing
        assert not blocked.done()
    assert [one.result()[0] for one in (blocked, *others)] == [403] * 4
    assert [seen.values("x-hook") for seen in here.upstream.seen] == [[]]
    await here.restarted(before)
    assert (await ask(here, here.hooking("plain")))[0] == 200


async def test_a_process_that_is_killed_in_a_call_refuses_it_and_the_next_one_works(
    here: HookWorld,
) -> None:
    before = here.pid
    async with asyncio.TaskGroup() as group:
        hanging = group.create_task(refused(here, "begins"))
        while True:
            if (here.files / "begins.py.began").exists():
                break
            await asyncio.sleep(0.01)
        os.kill(before, signal.SIGKILL)
    assert "ended during the call" in hanging.result()
    await here.restarted(before)
    assert (await ask(here, here.hooking("plain")))[0] == 200


async def test_a_process_that_does_not_answer_refuses_in_time(here: HookWorld) -> None:
    assert (await ask(here, here.hooking("plain")))[0] == 200
    before = here.pid
    os.kill(before, signal.SIGSTOP)
    try:
        assert "did not answer in time" in await refused(here, "plain")
    finally:
        os.kill(before, signal.SIGCONT)


async def test_without_the_process_requests_are_refused(here: HookWorld) -> None:
    """It is soon there again: each time it is killed it stays away for longer, until a request meets nobody."""
    reason = ""
    async with asyncio.timeout(30):
        while "not running" not in reason:
            if pid := here.supervisor.pids.get("hooks"):
                with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                    os.kill(pid, signal.SIGKILL)
            passed = len(here.upstream.seen)
            status, _, body = await ask(here, here.hooking("plain"))
            reason = body.decode() if status == 403 else ""
            sent = here.upstream.seen[passed:]
            assert [one.values("x-hook") for one in sent] == ([["p"]] if status == 200 else [])


async def test_a_grant_that_changes_during_a_call_is_what_holds(here: HookWorld) -> None:
    way = await here.open(here.hooking("slow"))
    client = await here.tls(way)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(client.request("/"))
        await asyncio.sleep(0.2)
        await here.registry.update(way.binding.id, grant())
    assert asked.result()[0] == 403
    assert not here.upstream.seen
    await here.registry.update(way.binding.id, here.hooking("slow"))
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(client.request("/", method="POST", body=b"abc"))
        await asyncio.sleep(0.2)
        await here.registry.update(way.binding.id, here.hooking("body", body_bytes=9))
    assert asked.result()[0] == 200
    assert here.upstream.seen[-1].body == b"ABC!"


async def test_a_guest_that_leaves_during_a_call_harms_nobody(here: HookWorld) -> None:
    way = await here.open(here.hooking("slow"))
    for _ in range(3):
        client = await here.tls(way)
        await client.send(f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
        client.writer.transport.abort()
    assert (await (await here.tls(way)).request("/"))[0] == 200
    assert len(here.upstream.seen) == 1


async def test_one_sandbox_cannot_take_all_calls(here: HookWorld) -> None:
    way = await here.open(here.hooking("slow"))
    clients = [await here.tls(way) for _ in range(40)]
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(client.request("/")) for client in clients]
        await asyncio.sleep(0.2)
        assert (await ask(here, here.hooking("plain")))[0] == 200
    statuses = [one.result()[0] for one in asked]
    assert statuses.count(200) == 32
    assert statuses.count(403) == 8


# Files that change.


async def test_a_changed_file_holds_at_once_and_a_broken_one_keeps_the_last_good(
    here: HookWorld,
) -> None:
    granted = here.hooking("plain")
    for text, error in [
        ("def on_request(:\n", "line 1: "),
        ("async def on_request(ctx):\n    pass\n", "must take 2 arguments"),
        ("def on_request(ctx, request):\n    pass\n", "not an `async def`"),
        ("1 / 0\n", "ZeroDivisionError at line 1 of plain.py"),
        ("x = 1\n", "neither on_request nor on_response"),
    ]:
        told = await here.write("plain", text)
        assert error in told.error
        assert told.stages == ("request",)
        assert (await ask(here, granted))[0] == 200
        assert here.upstream.seen[-1].values("x-hook") == ["p"]
    told = await here.write("plain", REQUEST + "request.headers.set('x-hook', 'new')")
    assert not told.error
    assert (await ask(here, granted))[0] == 200
    assert here.upstream.seen[-1].values("x-hook") == ["new"]
    (here.files / "plain.py").unlink()
    async with asyncio.timeout(5):
        while True:
            if all(one.name != "plain" for one in await here.catalog()):
                break
            await asyncio.sleep(0.05)
    assert "no such hook" in await refused(here, "plain")


async def test_the_last_good_version_outlives_the_process(here: HookWorld) -> None:
    assert (await here.write("plain", "1 / 0\n")).error
    before = here.pid
    os.kill(before, signal.SIGKILL)
    await here.restarted(before)
    told = {one.name: one for one in await here.catalog()}["plain"]
    assert (told.stages, "ZeroDivisionError" in told.error) == (("request",), True)
    assert (await ask(here, here.hooking("plain")))[0] == 200
    assert here.upstream.seen[-1].values("x-hook") == ["p"]


@pytest.mark.parametrize("text", ["while True: pass\n", "import os\nos._exit(1)\n"])
async def test_a_file_that_ends_the_process_as_it_is_loaded_is_found_out(
    here: HookWorld, text: str
) -> None:
    told = await here.write("plain", text)
    assert "ended or blocked the process" in told.error
    assert (await ask(here, here.hooking("plain")))[0] == 200
    assert here.upstream.seen[-1].values("x-hook") == ["p"]
    assert not (await here.write("plain", HOOKS["second"])).error


# The process.


async def test_the_process_is_bounded_and_unreadable(here: HookWorld) -> None:
    status = Path(f"/proc/{here.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "CapBnd:\t0000000000000000" in status or os.geteuid() != 0
    limits = Path(f"/proc/{here.pid}/limits").read_text()
    told = {line[:25].strip(): line[26:].split()[0] for line in limits.splitlines()}
    assert told["Max address space"] == str(512 << 20)
    environment = Path(f"/proc/{here.pid}/environ").read_bytes()
    names = {entry.partition(b"=")[0] for entry in environment.split(b"\0") if entry}
    assert names <= {
        b"PATH",
        b"LANG",
        b"PYTHONPATH",
        b"PYTHONDONTWRITEBYTECODE",
        b"PYTHONUNBUFFERED",
    }
