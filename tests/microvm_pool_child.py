"""Keeps a machine ready and claims another, says so, and waits to be killed."""

import asyncio
import sys
from pathlib import Path

from handiwork.model.sandbox import SandboxExit
from handiwork.sandboxes.protocol import Wish
from microvm_world import LIMITS, make_driver, spec


async def main(directory: Path) -> None:
    driver = make_driver(directory)  # its machines live as long as it
    wishes = [Wish(image="any", limits=LIMITS, sandboxes=1)]
    nowhere = SandboxExit(socket_path=str(directory / "nowhere"), ca_certificate="CA\n")
    await driver.prepare(wishes)
    box = await driver.create(spec("sbx_poolccc1", exit=nowhere))
    await box.files.write("/workspace/kept", b"kept")
    await driver.prepare(wishes)
    print("ready", flush=True)
    await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
