"""Generations of a sandbox whose driver a test holds itself, and their files made again elsewhere."""

import asyncio
import os
import threading
from pathlib import Path

from handiwork.sandboxes.snapshots.capture import Wanted
from handiwork.sandboxes.snapshots.generations import Generations
from handiwork.sandboxes.snapshots.manifest import Manifest
from handiwork.sandboxes.snapshots.owners import Range


async def take(driver, generations: Generations, sandbox_id: str) -> Manifest:
    """Take one of a sandbox that runs, frozen meanwhile."""
    number, former = generations.newest(sandbox_id)
    async with driver.still(sandbox_id) as tree:
        origin = driver.origin(sandbox_id)
        wanted = Wanted(
            tenant="default",
            sandbox_id=sandbox_id,
            number=number,
            reason="request",
            image=origin.image,
            tree=origin.tree,
            files=tree,
            ids=origin.ids,
        )
        return await asyncio.to_thread(generations.take, wanted, former, threading.Event())


def make(generations: Generations, manifest: Manifest, directory: Path) -> Path:
    """Make its files in a new directory, as root's own; blocks."""
    directory.mkdir()
    place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        generations.make(manifest, Range(0, os.geteuid()), place, "made", threading.Event())
    finally:
        os.close(place)
    return directory / "made"
