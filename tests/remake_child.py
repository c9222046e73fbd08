"""Puts the files of one generation in the place of a sandbox's, once it is told to; who starts it may kill it."""

import asyncio
import concurrent.futures
import os
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from handiwork.sandboxes.isolate.driver import IsolateDriver
from handiwork.sandboxes.namespace import NamespaceDriver
from handiwork.sandboxes.protocol import Driver
from handiwork.sandboxes.snapshots.manifest import Entry
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.store.object_blobs import ObjectBlobs
from snapshot_child import ID, generations_in

DISK_MIB = 64
OTHER = "sbx_bbbbbbbb"


def open_driver(directory: Path, tier: str) -> Driver:
    if tier == "isolate":
        return IsolateDriver(directory, user_id=0)
    return NamespaceDriver(directory, clock=lambda: datetime.now(UTC))


async def remake(driver: Driver, directory: Path, number: int, sandbox_id: str = ID) -> None:
    """Make a generation that is in `directory/blobs` a sandbox's files."""
    generations = generations_in(ObjectBlobs.in_directory(directory / "blobs"))
    manifest = generations.load(ID, number)

    async def make(place: int, ids: Range) -> list[Entry]:
        given = (manifest, ids, place, "upper", threading.Event())
        return await asyncio.to_thread(generations.make, *given)

    await driver.remake(sandbox_id, manifest.head.image, DISK_MIB, make)


async def main() -> None:
    # A tracer counts by thread: with one, two runs take the same steps in it.
    executor = concurrent.futures.ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(executor)
    directory, tier, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    driver = open_driver(directory, tier)
    # What is made once for all, by programs of the host, is there before anybody counts.
    await remake(driver, directory, number, OTHER)
    await driver.destroy(OTHER)
    print("ready", flush=True)
    await asyncio.to_thread(os.read, 0, 1)
    await remake(driver, directory, number)
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
