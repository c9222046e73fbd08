"""Sandboxes of every tier at the driver's port: create, wake, save."""

import harness
from parts import machines


async def measure(bench: harness.Bench) -> None:
    with bench.part(*machines.NAMES):
        await machines.measure(bench)


if __name__ == "__main__":
    harness.main("sandbox", measure)
