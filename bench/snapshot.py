"""Snapshots of a real tree beside tar with zstd and restic, and how soon a sandbox that
slept is awake, or one more like it there."""

import harness
from parts import forks, generations, waking


async def measure(bench: harness.Bench) -> None:
    with bench.part(*generations.NAMES):
        await generations.measure(bench)
    with bench.part("wake_ms"):
        await waking.measure(bench)
    with bench.part(*forks.NAMES):
        await forks.measure(bench)


if __name__ == "__main__":
    harness.main("snapshot", measure)
