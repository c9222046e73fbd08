"""Makes many sandboxes, keeps each busy, writes a file into each, says so, and waits to be killed."""

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from handiwork.model.sandbox import ExecRequest, SandboxSpec
from handiwork.sandboxes.namespace import NamespaceDriver

BUSY = """
(while :; do echo line; sleep 0.2; done) >>/workspace/log &
setsid sleep 4726.5 >/dev/null 2>&1 &
mkfifo /workspace/fifo; sleep 4726.5 </workspace/fifo & sleep 4726.5
"""


async def make(driver: NamespaceDriver, name: str, making: asyncio.Semaphore) -> None:
    async with making:
        box = await driver.create(SandboxSpec(id=name))
        await box.start(ExecRequest(argv=("sh", "-c", BUSY), cwd="/", timeout_seconds=None))
        await box.files.write("/workspace/kept", name.encode())


async def main(data_dir: Path, names: list[str]) -> None:
    driver = NamespaceDriver(data_dir, clock=lambda: datetime.now(UTC))
    making = asyncio.Semaphore(8)
    async with asyncio.TaskGroup() as tasks:
        for name in names:
            tasks.create_task(make(driver, name, making))
    print("ready", flush=True)
    await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
