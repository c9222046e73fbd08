"""Run as root: gives up root for uid 65534, then makes every attack of the tables in one sandbox.

Prints the words by the attacks' names, as JSON.
"""

import asyncio
import concurrent.futures.thread  # noqa: F401  imported late by asyncio, from where uid 65534 may not read
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from attacks import kernel, mounts, processes, sockets
from handiwork.model.sandbox import SandboxSpec
from handiwork.process import is_root
from handiwork.sandboxes.namespace import NamespaceDriver


async def main(data_dir: Path, agent: Path) -> None:
    driver = NamespaceDriver(data_dir, agent, clock=lambda: datetime.now(UTC))
    box = await driver.create(SandboxSpec(id="sbx_rootless00"))
    said = {"uid": os.geteuid()}
    try:
        for attack in (*mounts.ALL, *kernel.ALL, *sockets.ALL, *processes.ALL):
            result = await box.exec(attack.request)
            said[attack.name] = result.stdout.decode().strip() or result.stderr.decode()[-300:]
    finally:
        await driver.destroy(box.id)
    print(json.dumps(said))


if __name__ == "__main__":
    if is_root():
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
