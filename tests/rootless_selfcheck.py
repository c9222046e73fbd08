"""Run as root: gives up root for uid 65534 (root of a user namespace stays), then makes the contract suite and prints it as JSON."""

import asyncio
import concurrent.futures.thread  # noqa: F401  imported late by asyncio, from where uid 65534 may not read
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from handiwork.process import is_root
from handiwork.sandboxes.gvisor.driver import Gvisor, find_runsc
from handiwork.sandboxes.namespace import NamespaceDriver
from handiwork.sandboxes.selfcheck import selfcheck


async def main(data_dir: Path, agent: Path, tier: str) -> None:
    runsc = find_runsc("")
    inside = Gvisor(runsc) if tier == "gvisor" and runsc else None
    driver = NamespaceDriver(data_dir, agent, clock=lambda: datetime.now(UTC), inside=inside)
    assert driver.tier == tier
    checks = [msgspec.to_builtins(found) async for found in selfcheck(driver)]
    left = sorted(entry.name for entry in (data_dir / "sandboxes").iterdir())
    clocks = driver.protections()["own_clocks"]
    told = {"uid": os.geteuid(), "checks": checks, "left": left, "own_clocks": clocks}
    print(json.dumps(told))


if __name__ == "__main__":
    if is_root():
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), (sys.argv[3:] or ["namespace"])[0]))
