"""Checks of a sandbox's life: create, sleep, restore, destroy."""

import asyncio

from handiwork.model.errors import ConflictError, NotFoundError, SandboxUnavailableError
from handiwork.model.sandbox import ExecRequest, SandboxSpec
from handiwork.sandboxes.selfcheck.table import Bench, Refuted, check, expect, hold


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
    expect((await woken.exec(ExecRequest(argv=("true",)))).exit_code, 0, "exit code")


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


async def _raises(wanted: type[Exception], bench: Bench, spec: SandboxSpec) -> None:
    try:
        await bench.driver.restore(spec)
    except wanted:
        return
    raise Refuted("what is not there was restored")
