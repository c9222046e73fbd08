"""Makes a sandbox, says so, and waits in it to be killed."""

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from handiwork.model.sandbox import ExecRequest, SandboxSpec
from handiwork.sandboxes.namespace import NamespaceDriver


async def main():
    driver = NamespaceDriver(Path(sys.argv[1]), clock=lambda: datetime.now(UTC))
    box = await driver.create(SandboxSpec(id=sys.argv[2]))
    await box.files.write("/workspace/kept", b"kept")
    await box.exec(ExecRequest(argv=("sh", "-c", "setsid sleep 4713.5 >/dev/null 2>&1 &")))
    print("ready", flush=True)
    await box.exec(ExecRequest(argv=("sleep", "4713.5"), timeout_seconds=None))


asyncio.run(main())
