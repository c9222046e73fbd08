"""Run as root: gives up root, makes one machine as an ordinary user, says so, and waits for its input to end."""

import asyncio
import concurrent.futures.thread  # noqa: F401  imported late by asyncio, from where nobody may read
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from handiwork.model.sandbox import ExecRequest
from handiwork.sandboxes.images.sample import SampleImages
from handiwork.sandboxes.microvm.driver import MicrovmDriver
from handiwork.sandboxes.microvm.kernel import Boot, find_kernel, make_boot
from handiwork.sandboxes.microvm.plan import Setup
from microvm_world import kernel_dir, spec

NOBODY = 65534


async def main(directory: Path, agent: Path, boot: Boot, sandbox_id: str) -> None:
    setup = Setup(acceleration="tcg", kind="pc")
    images = SampleImages(directory / "image")
    driver = MicrovmDriver(
        directory / "data", agent, images, setup, clock=lambda: datetime.now(UTC)
    )
    driver._boot = boot  # the kernel may lie where nobody may read
    box = await driver.create(spec(sandbox_id))
    done = await box.exec(ExecRequest(argv=("sh", "-c", "echo well"), cwd="/"))
    print(done.stdout.decode().strip(), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await driver.destroy(sandbox_id)
    print(list((directory / "data/microvm/states").iterdir()), flush=True)


if __name__ == "__main__":
    place, program = Path(sys.argv[1]), Path(sys.argv[2])
    made = make_boot(find_kernel(kernel_dir()), program, place / "boot")
    made.kernel.parent.parent.chmod(0o755)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    asyncio.run(main(place, program, made, sys.argv[3]))
