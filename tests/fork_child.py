"""Forks a sandbox again and again, asleep and running, until it is killed."""

import asyncio
import hashlib
import itertools
import sys
from datetime import UTC, datetime
from pathlib import Path

from handiwork.model.sandbox import ExecRequest, Limits, SandboxSpec
from handiwork.sandboxes.namespace import NamespaceDriver

MUCH = 20_000_000
CONTENT = hashlib.sha256(b"y\n" * (MUCH // 2)).hexdigest()
LIMITS = Limits(disk_mib=256)


def id_of(turn: int, number: int) -> str:
    return f"sbx_turn{turn:02}{number:06}"


def made_of(sandbox_id: str) -> int:
    """Return the turn that made a sandbox."""
    return int(sandbox_id[8:10])


async def main() -> None:
    driver = NamespaceDriver(Path(sys.argv[1]), clock=lambda: datetime.now(UTC))
    turn = int(sys.argv[2])
    first = SandboxSpec(id=id_of(turn, 0), limits=LIMITS)
    box = await driver.create(first)
    script = f"yes | head -c {MUCH} > /workspace/much; echo kept > /workspace/mark; sync"
    await box.exec(ExecRequest(argv=("sh", "-c", script), cwd="/"))
    print("ready", flush=True)
    last = first.id
    for number in itertools.count(1):
        await driver.fork(last, id_of(turn, number))
        if number % 2:
            await driver.sleep(last)
        else:
            last = id_of(turn, number)
            await driver.restore(SandboxSpec(id=last, limits=LIMITS))


if __name__ == "__main__":
    asyncio.run(main())
