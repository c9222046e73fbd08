"""Isolates at the driver's port, beside others' ways to run a piece of code, in one run."""

import asyncio
import contextlib

import harness
from parts import cells, runtimes, workerd

PEERS = (
    "deno_create_ms",
    "mini_racer_create_ms",
    "python_spawn_ms",
    "workerd_dynamic_ms",
    "workerd_process_ms",
)


SHORT: dict[cells.Language, str] = {"javascript": "js", "python": "python", "bash": "bash"}


async def measure(bench: harness.Bench) -> None:
    names = [f"{short}_{how}_ms" for short in SHORT.values() for how in ("pooled", "cold")]
    with bench.part(*names):
        async with cells.isolates() as made:
            keeper = await made.create()  # zygotes stay while there is one
            holds = await made.driver.protections()
            bench.protections += [name for name, held in holds.items() if held]
            await beside_others(bench, made)
            await made.ready(0)
            for language, short in SHORT.items():
                await cells.measure_runs(bench, made, language, short)
                await cells.measure_idle(bench, made, language, f"{short}_idle_mb")
            weigh_beside_workerd(bench)
            await cells.measure_rate(bench, made)
            await cells.measure_kill(bench, made)
            await made.driver.destroy(keeper.id)
    with bench.part("live_isolates", "live_isolate_mib", "live_woken_ms"):
        async with cells.isolates() as made:
            await cells.measure_crowd(bench, made)


def weigh_beside_workerd(bench: harness.Bench) -> None:
    """Sessions that can be killed one by one: of workerd those are processes."""
    with bench.part("workerd_process_mb", "workerd_dynamic_mb", "workerd_vs_js_mb_ratio"):
        workerd.measure_idle(bench)
        ours = bench.results["js_idle_mb"]["value"]
        bench.ratio("workerd_vs_js_mb_ratio", [bench.results["workerd_process_mb"]["value"] / ours])


async def beside_others(bench: harness.Bench, made: cells.Isolates) -> None:
    """First results, from the pool and by a fork, and those of peers, in turns."""
    with contextlib.ExitStack() as stack:
        taken = await bench.alternate(
            arms_of(bench, made, stack), count=bench.times(200, 20), warm_up=3
        )
    for name, seconds in taken.items():
        bench.record(name, seconds, "ms", scale=1000)
    for peer in PEERS:
        if peer in taken:
            pairs = zip(taken[peer], taken["js_pooled_ms"], strict=True)
            name = f"js_pooled_vs_{peer.removesuffix('_ms')}_ratio"
            bench.ratio(name, [one / ours for one, ours in pairs])


def arms_of(
    bench: harness.Bench, made: cells.Isolates, stack: contextlib.ExitStack
) -> dict[str, harness.Arm]:
    arms: dict[str, harness.Arm] = {"python_spawn_ms": runtimes.python(bench)}
    with bench.part("deno_create_ms"):
        arms["deno_create_ms"] = runtimes.deno(bench)
    with bench.part("workerd_dynamic_ms", "workerd_warm_ms", "workerd_process_ms"):
        arms |= stack.enter_context(workerd.arms(bench))
    with bench.part("mini_racer_create_ms"):
        arms["mini_racer_create_ms"] = stack.enter_context(runtimes.mini_racer(bench))
    for language, short in SHORT.items():
        arms[f"{short}_pooled_ms"] = lambda language=language: pooled(made, language)
        arms[f"{short}_cold_ms"] = lambda language=language: cold(made, language)
    return arms


async def pooled(made: cells.Isolates, language: cells.Language) -> float:
    await made.ready(cells.READY)
    for _ in range(5000):
        if made.driver.ready.get(language, 0) == cells.READY:
            break
        await asyncio.sleep(0.002)
    return await made.first_result(language)


async def cold(made: cells.Isolates, language: cells.Language) -> float:
    await made.ready(0)
    return await made.first_result(language)


if __name__ == "__main__":
    harness.main("isolate", measure)
