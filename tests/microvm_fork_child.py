"""Forks a machine again and again, running and asleep, from when it is told to until it is killed."""

import asyncio
import hashlib
import itertools
import sys
from pathlib import Path

from handiwork.model.sandbox import ExecRequest
from microvm_world import make_driver, spec

MUCH = 20_000_000
CONTENT = hashlib.sha256(b"y\n" * (MUCH // 2)).hexdigest()
SOURCE = "sbx_forkkill00"


async def main(directory: Path) -> None:
    driver = make_driver(directory)
    box = await driver.create(spec(SOURCE))
    script = f"yes | head -c {MUCH} > /workspace/much; sync"
    await box.exec(ExecRequest(argv=("sh", "-c", script), cwd="/"))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)  # a machine that is being forked may stand still
    for number in itertools.count(1):
        await driver.fork(SOURCE, f"sbx_forkkill{number:02}")
        if number == 4:
            await driver.sleep(SOURCE)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
