"""Checks of a sandbox's life: create, sleep, restore, destroy."""

import asyncio
from typing import NoReturn

from handiwork.model.errors import (
    ConflictError,
    NotFoundError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.model.sandbox import ExecRequest, SandboxSpec
from handiwork.sandboxes.protocol import Sandbox
from handiwork.sandboxes.selfcheck.commands import count_sleeps
from handiwork.sandboxes.selfcheck.table import Bench, Lacks, Refuted, check, expect, hold


@check("life")
async def _sleep_and_restore_keep_files(bench: Bench) -> None:
    spec = bench.spec()
    box = await bench.driver.create(spec)
    await box.files.write("/workspace/kept", b"kept")
    await box.files.write("/etc/changed", b"changed", mode=0o600)
    await bench.driver.sleep(spec.id)
    await bench.driver.sleep(spec.id)
    expect(await asyncio.wait_for(box.closed(), 5), "", "reason of the end")
    hold(spec.id in await bench.driver.leftovers(), "its state is not told")
    woken = await bench.driver.restore(spec)
    expect(await woken.files.read("/workspace/kept"), b"kept", "file")
    expect((await woken.files.stat("/etc/changed")).mode, 0o600, "mode")
    hold(await bench.works(woken), "it does nothing once it was woken")


@check("shell")
async def _processes_live_on_through_a_sleep(bench: Bench) -> None:
    spec = bench.spec()
    living = ExecRequest(argv=("sh", "-c", count_sleeps("74.5")), cwd="/")
    box = await bench.driver.create(spec)
    await box.exec(ExecRequest(argv=("sh", "-c", "sleep 74.5 >/dev/null 2>&1 &"), cwd="/"))
    expect((await box.exec(living)).stdout, b"1\n", "processes before")
    await bench.driver.sleep(spec.id)
    woken = await bench.driver.restore(spec)
    left = (await woken.exec(living)).stdout
    if left == b"0\n":
        raise Lacks("processes end when a sandbox of this tier sleeps; its files are kept")
    expect(left, b"1\n", "processes that lived on")


@check("life")
async def _destroy_leaves_nothing(bench: Bench) -> None:
    spec = bench.spec()
    box = await bench.driver.create(spec)
    await box.files.write("/workspace/a/b/c", b"x")
    await bench.driver.destroy(spec.id)
    await bench.driver.destroy(spec.id)
    hold(spec.id not in await bench.driver.leftovers(), "state is left")
    try:
        await box.files.read("/workspace/a/b/c")
    except SandboxUnavailableError:
        pass
    else:
        raise Refuted("a destroyed sandbox still answers")
    await _raises(NotFoundError, bench, spec)


@check("life")
async def _an_id_is_used_once(bench: Bench) -> None:
    spec = bench.spec()
    await bench.driver.create(spec)
    try:
        await bench.driver.create(spec)
    except ConflictError:
        return
    raise Refuted("a second sandbox of the same id was made")


@check("life")
async def _a_missing_state_is_not_restored(bench: Bench) -> None:
    await _raises(NotFoundError, bench, bench.spec())


@check("life")
async def _sandboxes_do_not_see_each_other(bench: Bench) -> None:
    async with asyncio.TaskGroup() as group:
        specs = [bench.spec() for _ in range(3)]
        calls = [group.create_task(bench.driver.create(spec)) for spec in specs]
    boxes = [call.result() for call in calls]
    for number, box in enumerate(boxes):
        await box.files.write("/workspace/mine", f"{number}".encode())
    for number, box in enumerate(boxes):
        expect(await box.files.read("/workspace/mine"), f"{number}".encode(), "own file")


@check("life")
async def _forks_have_the_files_and_are_apart(bench: Bench) -> None:
    spec = bench.spec()
    box = await bench.driver.create(spec)
    await box.files.write("/workspace/kept", b"kept", mode=0o640)
    if not bench.driver.can_fork(spec.id):
        await _refuses_to_fork(bench, spec)
    for _ in range(2):
        twin = await _forked(bench, spec)
        expect(await twin.files.read("/workspace/kept"), b"kept", "file of a fork")
        expect((await twin.files.stat("/workspace/kept")).mode, 0o640, "mode in a fork")
        await twin.files.write("/workspace/kept", b"the fork's")
        await bench.driver.sleep(spec.id)  # the second time round it sleeps while it is forked
    woken = await bench.driver.restore(spec)
    expect(await woken.files.read("/workspace/kept"), b"kept", "file after forks")


@check("life")
async def _a_fork_outlives_what_it_is_of(bench: Bench) -> None:
    spec = bench.spec()
    box = await bench.driver.create(spec)
    if not bench.driver.can_fork(spec.id):
        await _refuses_to_fork(bench, spec)
    await box.files.write("/workspace/kept", b"kept")
    await bench.driver.sleep(spec.id)
    fork = bench.spec()
    await bench.driver.fork(spec.id, fork.id)
    await bench.driver.destroy(spec.id)
    twin = await bench.driver.restore(fork)
    expect(await twin.files.read("/workspace/kept"), b"kept", "file of a fork")
    try:
        await bench.driver.fork(fork.id, fork.id)
    except ConflictError:
        return
    raise Refuted("a fork took the place of a sandbox that was there")


async def _forked(bench: Bench, spec: SandboxSpec) -> Sandbox:
    fork = bench.spec()
    await bench.driver.fork(spec.id, fork.id)
    hold(fork.id in await bench.driver.leftovers(), "the state of a fork is not told")
    return await bench.driver.restore(fork)


async def _refuses_to_fork(bench: Bench, spec: SandboxSpec) -> NoReturn:
    """Raise Lacks where it is refused by name and nothing is left, else Refuted."""
    target = bench.spec()
    try:
        await bench.driver.fork(spec.id, target.id)
    except UnsupportedError as error:
        hold(target.id not in await bench.driver.leftovers(), "state of a refused fork is left")
        raise Lacks(str(error)) from None
    raise Refuted("what cannot be forked was")


async def _raises(wanted: type[Exception], bench: Bench, spec: SandboxSpec) -> None:
    try:
        await bench.driver.restore(spec)
    except wanted:
        return
    raise Refuted("what is not there was restored")
