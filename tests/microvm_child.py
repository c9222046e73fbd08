"""A driver in a process of its own, to be killed: makes or wakes one machine, says so, and waits."""

import asyncio
import sys
from pathlib import Path

from handiwork.model.sandbox import ExecRequest
from microvm_world import make_driver, spec


async def main(directory: Path, sandbox_id: str, script: str) -> None:
    driver = make_driver(directory)  # its machine lives as long as it
    box = await driver.create(spec(sandbox_id))
    done = await box.exec(ExecRequest(argv=("sh", "-c", script), cwd="/"))
    print("ready", done.exit_code, flush=True)
    await asyncio.sleep(600)
    await driver.destroy(sandbox_id)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
