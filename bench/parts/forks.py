"""One more like a sandbox that has files of its own: asked for, made, awake, until its first output.

`fork_running_ms` is of one that runs, `fork_sleeping_ms` of one that sleeps; `..._made_ms` is the part
until the fork is there and sleeps, `fork_frozen_ms` how long the one that runs is held still.
"""

import time
from contextlib import asynccontextmanager

from handiwork.model.sandbox import ExecRequest, SandboxSpec
from handiwork.sandboxes.protocol import Wish
from harness import Bench, Skip
from parts.creation import COMMAND, sandboxes
from parts.waking import FILL, LEAST_MIB

NAMES = (
    "fork_running_ms",
    "fork_running_made_ms",
    "fork_frozen_ms",
    "fork_sleeping_ms",
    "fork_sleeping_made_ms",
)
WARM_UP = 1


async def measure(bench: Bench) -> None:
    """All NAMES, in the namespace tier, with at least 300 MiB written."""
    async with sandboxes() as boxes:
        spec = SandboxSpec(id=boxes.next_id())
        box = await boxes.driver.create(spec)
        filled = await box.exec(ExecRequest(argv=("sh", "-c", FILL), cwd="/", timeout_seconds=120))
        if filled.exit_code or int(filled.stdout) < LEAST_MIB:
            raise RuntimeError(f"the sandbox could not be filled: {filled}")
        if not boxes.driver.can_fork(spec.id):
            raise Skip("sandboxes have no disks of their own here: see `handiwork doctor`")
        mib = int(filled.stdout)
        frozen = _timing_freezes(boxes.driver, spec.id)
        await _measure(bench, boxes, spec, "running", mib)
        bench.record("fork_frozen_ms", frozen[WARM_UP:], "ms", scale=1000, mib=mib)
        await boxes.driver.sleep(spec.id)
        await _measure(bench, boxes, spec, "sleeping", mib)
        await boxes.driver.prepare(())


async def _measure(bench: Bench, boxes, spec: SandboxSpec, what: str, mib: int) -> None:
    made, ready = [], []
    for _ in range(WARM_UP + bench.times(20, 5)):
        one, other = await _fork(boxes, spec.id)
        made.append(one)
        ready.append(other)
        if what == "sleeping":  # the next fork finds it on a disk of its own again
            await boxes.driver.settle(spec.id, spec.limits.disk_mib)
    bench.record(f"fork_{what}_ms", ready[WARM_UP:], "ms", scale=1000, mib=mib)
    bench.record(f"fork_{what}_made_ms", made[WARM_UP:], "ms", scale=1000, mib=mib)


async def _fork(boxes, source: str) -> tuple[float, float]:
    """Return the seconds until a fork is made, and until its first output; what is left goes untimed."""
    spec = SandboxSpec(id=boxes.next_id())
    await boxes.driver.prepare(
        [Wish(image=spec.image, limits=spec.limits)]
    )  # as a control plane does
    before = time.perf_counter()
    await boxes.driver.fork(source, spec.id)
    made = time.perf_counter() - before
    box = await boxes.driver.restore(spec)
    ended = await box.exec(ExecRequest(argv=COMMAND))
    ready = time.perf_counter() - before
    if ended.stdout != b"ready\n":
        raise RuntimeError(f"the fork answered {ended}")
    await boxes.driver.destroy(spec.id)
    return made, ready


def _timing_freezes(driver, sandbox_id: str) -> list[float]:
    """Note how long each freeze of a running sandbox lasts."""
    running = driver._running[sandbox_id]
    still, taken = running.still, []

    @asynccontextmanager
    async def timed():
        async with still():
            before = time.perf_counter()
            yield
            taken.append(time.perf_counter() - before)

    running.still = timed
    return taken
