"""Keeps sandboxes ready and claims one, says so, and waits to be killed."""

import asyncio
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

from handiwork.model.sandbox import SandboxExit, SandboxSpec
from handiwork.sandboxes.namespace import NamespaceDriver
from handiwork.sandboxes.protocol import Wish


async def main(data_dir: Path, name: str) -> None:
    driver = NamespaceDriver(data_dir, clock=lambda: datetime.now(UTC))
    with socket.socket(socket.AF_UNIX) as refusing:
        refusing.bind(str(data_dir / "exit.sock"))
    spec = SandboxSpec(
        id=name, exit=SandboxExit(socket_path=str(data_dir / "exit.sock"), ca_certificate="CA\n")
    )
    wishes = [Wish(image="host", limits=spec.limits, sandboxes=3)]
    await driver.prepare(wishes)
    box = await driver.create(spec)
    await box.files.write("/workspace/kept", b"kept")
    await driver.prepare(wishes)
    (data_dir / "exit.sock").unlink()
    print("ready", flush=True)
    await asyncio.sleep(600)


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
