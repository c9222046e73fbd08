"""The same over REST: from the request for a new sandbox to its first output, through a whole `handiwork up`."""

import asyncio
import tempfile
import time
from pathlib import Path

from handiwork import Handiwork
from harness import Bench
from parts.plane import running
from parts.tiers import COMMAND, OUTPUT

REFILL_SECONDS = 0.25
"""The pool is filled again behind us; as long is waited for both arms."""


async def measure(bench: Bench) -> None:
    """namespace_create_rest_ms without a pool, namespace_pooled_rest_ms with the default one."""
    count = bench.times(100, 8)
    for name, settings in (
        ("namespace_create_rest_ms", "[sandbox.pool]\nready = 0\n"),
        ("namespace_pooled_rest_ms", ""),
    ):
        with (
            tempfile.TemporaryDirectory(prefix="hw-rest-") as place,
            running(Path(place), settings=settings) as plane,
        ):
            async with Handiwork(base_url=plane.api, api_key=plane.admin_key) as client:
                taken = [await _once(client) for _ in range(2 + count)][2:]
        bench.record(name, taken, "ms", scale=1000)


async def _once(client: Handiwork) -> float:
    await asyncio.sleep(REFILL_SECONDS)
    before = time.perf_counter()
    box = await client.sandboxes.create()
    try:
        ended = await box.exec(COMMAND)
        seconds = time.perf_counter() - before
    finally:
        await box.close()
    if ended.stdout != OUTPUT:
        raise RuntimeError(f"the sandbox answered {ended}")
    return seconds
