"""A control plane of a test's own, asked through the client, whose disks are lost and damaged."""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import control_plane_process
from control_plane_process import ControlPlane
from handiwork.client.handiwork import Handiwork
from handiwork.client.sandboxes import Sandbox

SECONDS = 60.0
START_SECONDS = 120.0


def started(directory: Path, config: str) -> ControlPlane:
    return control_plane_process.start(directory, config=config, seconds=START_SECONDS)


def running(directory: Path, config: str) -> AbstractContextManager[ControlPlane]:
    return control_plane_process.running(directory, config=config, seconds=START_SECONDS)


def asked(plane: ControlPlane, verb: Callable[[Handiwork], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with Handiwork(socket=plane.socket) as client:
            return await verb(client)

    return asyncio.run(run())


async def until(what: Callable[[], Awaitable[Any]]) -> Any:
    limit = time.monotonic() + SECONDS
    while not (found := await what()):
        assert time.monotonic() < limit, "it did not come"
        await asyncio.sleep(0.1)
    return found


async def text(box: Sandbox, command: str) -> str:
    result = await box.exec(command)
    return (result.stdout + result.stderr).decode().strip()


def lose(plane: ControlPlane, sandbox_id: str) -> None:
    """Lose what this host has of a sandbox, as with a broken disk."""
    shutil.rmtree(plane.data / "sandboxes/sandboxes" / sandbox_id)


def damage(pack: Path) -> None:
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.write_bytes(content)
