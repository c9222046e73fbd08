"""Many sandboxes at once: what each costs while it rests, and how long a burst of them takes."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from handiwork.model.sandbox import ExecRequest
from harness import Bench
from parts import engines
from parts.tiers import COMMAND, KIND, OUTPUT, Tier

LIVE, COUNTED, BURST = 300, 100, 100
SETTLE_SECONDS = 1.0
REST_SECONDS = 0.2


def available_mib() -> float:
    """Return what the kernel could give to others."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/meminfo tells no MemAvailable")


async def measure(bench: Bench, tier: Tier) -> None:
    """idle_mib, live_sandboxes, burst100_p95_ms, burst100_pooled_p95_ms, burst100_bwrap_p95_ms."""
    await _idle_and_live(bench, tier)
    with bench.part("burst100_bwrap_p95_ms"):
        command = engines.bubblewrapped(bench)
        bursts = [engines.outputs_at_once(command, BURST) for _ in range(1 + bench.times(5, 1))]
        _record(bench, "burst100_bwrap", [each for burst in bursts[1:] for each in burst])
    await _burst(bench, tier, "burst100", ready=0)
    await _burst(bench, tier, "burst100_pooled", ready=BURST)


async def _idle_and_live(bench: Bench, tier: Tier) -> None:
    """Each has run one command before it rests: nothing is left out that a first one makes."""
    live, counted = bench.times(LIVE, 60), bench.times(COUNTED, 20)
    async with AsyncExitStack() as stack:
        await _enter(stack, tier, counted)  # the shared parts are there, and slabs are filled
        await asyncio.sleep(SETTLE_SECONDS)
        before = available_mib()
        boxes = await _enter(stack, tier, counted)
        await asyncio.sleep(SETTLE_SECONDS)
        each = (before - available_mib()) / counted
        boxes += await _enter(stack, tier, max(0, live - 2 * counted))
        answers = [await box.exec(ExecRequest(argv=COMMAND)) for box in boxes]
    if any(ended.stdout != OUTPUT for ended in answers):
        raise RuntimeError("one of many did not answer")
    bench.record("idle_mib", [each], "MiB", sandboxes=counted)
    bench.record("live_sandboxes", [float(max(live, 2 * counted))], "")


async def _enter(stack: AsyncExitStack, tier: Tier, count: int) -> list:
    boxes = []
    for _ in range(count):
        box = await stack.enter_async_context(tier.one())
        await box.exec(ExecRequest(argv=COMMAND))
        boxes.append(box)
    return boxes


async def _burst(bench: Bench, tier: Tier, name: str, *, ready: int) -> None:
    """A hundred are asked for at one moment; each is timed from that moment to its first output.

    So many stood ready before.
    """
    taken: list[float] = []
    for turn in range(1 + bench.times(5, 1)):
        await tier.driver.prepare([msgspec.structs.replace(KIND, sandboxes=ready)])
        await asyncio.sleep(REST_SECONDS)
        seconds = await _one_burst(tier)
        taken += seconds if turn else []
    await tier.driver.prepare([msgspec.structs.replace(KIND, sandboxes=0)])
    _record(bench, name, taken)


def _record(bench: Bench, name: str, taken: list[float]) -> None:
    bench.record(f"{name}_ms", taken, "ms", scale=1000)
    p95 = bench.results[f"{name}_ms"]["p95"]
    bench.record(f"{name}_p95_ms", [p95], "ms", bursts=bench.times(5, 1))


async def _one_burst(tier: Tier) -> list[float]:
    specs = [tier.spec() for _ in range(BURST)]
    began = time.perf_counter()

    async def one(spec) -> float:
        box = await tier.driver.create(spec)
        await box.exec(ExecRequest(argv=COMMAND))
        return time.perf_counter() - began

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(spec)) for spec in specs]
        return [task.result() for task in tasks]
    finally:
        for spec in specs:
            await tier.driver.destroy(spec.id)
