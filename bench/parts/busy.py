"""Run as a program: makes sandboxes on a directory, keeps each busy, says so, and waits to be killed."""

import asyncio
import sys
from pathlib import Path

from handiwork.app import now
from handiwork.model.sandbox import ExecRequest, SandboxSpec
from handiwork.sandboxes.namespace import NamespaceDriver
from handiwork.tiers import make_driver

TOGETHER = 8
BUSY = """
(while :; do echo line; sleep 0.2; done) >>/workspace/log &
setsid sleep 3600 >/dev/null 2>&1 &
mkfifo /workspace/fifo; sleep 3600 </workspace/fifo & sleep 3600
"""


async def make(driver: NamespaceDriver, number: int, making: asyncio.Semaphore) -> None:
    async with making:
        box = await driver.create(SandboxSpec(id=f"sbx_{number:032x}"))
        await box.start(ExecRequest(argv=("sh", "-c", BUSY), cwd="/", timeout_seconds=None))


async def main(directory: Path, count: int) -> None:
    driver = make_driver(directory, clock=now)
    making = asyncio.Semaphore(TOGETHER)
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(make(driver, number, making))
    print("ready", flush=True)
    await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
