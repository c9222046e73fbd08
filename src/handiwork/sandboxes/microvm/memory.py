"""A machine's memory across sleep: it lies in a file of its own, so that only its devices are saved.

QEMU maps the file (`x-ignore-shared`, as Kata's templates do), so falling asleep writes what processors
and devices hold, a few hundred KiB, and waking maps the file again.
"""

import asyncio
import os
from collections.abc import Collection
from pathlib import Path

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.microvm.qmp import Monitor

POLL_SECONDS = 0.001
POLLS = 30_000
_UNDER_WAY = ("setup", "active", "device", "pre-switchover", "cancelling", "wait-unplug")
_READING = ("inmigrate",)


async def save(monitor: Monitor, path: Path) -> None:
    """Stop the machine and write its devices' state; SandboxUnavailableError when it cannot be."""
    await monitor.run("stop")
    await _ignore_shared(monitor)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        await monitor.run("getfd", file, fdname="devices")
    finally:
        os.close(file)
    await monitor.run("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
    await monitor.run("migrate", uri="fd:devices")
    status = await _settled(monitor, "query-migrate", _UNDER_WAY)
    if status != "completed":
        raise SandboxUnavailableError(f"QEMU could not save the state of the machine: {status}")


async def load(monitor: Monitor, path: Path) -> None:
    """Read the state of a machine that was started as `waking`; it does not run yet."""
    await _ignore_shared(monitor)
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        await monitor.run("getfd", file, fdname="devices")
    finally:
        os.close(file)
    await monitor.run("migrate-incoming", uri="fd:devices")
    if (status := await _settled(monitor, "query-status", _READING)) != "paused":
        raise SandboxUnavailableError(f"QEMU could not read the state of the machine: {status}")


async def _ignore_shared(monitor: Monitor) -> None:
    capability = {"capability": "x-ignore-shared", "state": True}
    await monitor.run("migrate-set-capabilities", capabilities=[capability])


async def _settled(monitor: Monitor, query: str, under_way: Collection[str]) -> str:
    """Ask for a status until it is none of these; returns the last one."""
    status = ""
    for _ in range(POLLS):
        status = str((await monitor.run(query)).get("status"))
        if status not in under_way:
            break
        await asyncio.sleep(POLL_SECONDS)
    return status
