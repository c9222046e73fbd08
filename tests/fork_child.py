"""Forks a sandbox again and again, asleep and running, until it is killed.

Each fork starts and writes its number, which is told when that was done.
"""

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
        fork = id_of(turn, number)
        await driver.fork(last, fork)
        box = await driver.restore(SandboxSpec(id=fork, limits=LIMITS))
        write = f"echo {number} > /workspace/number"
        await box.exec(ExecRequest(argv=("sh", "-c", write), cwd="/"))
        print(fork, number, flush=True)
        if number % 2:
            await driver.sleep(last)
        else:
            last = fork


if __name__ == "__main__":
    asyncio.run(main())
