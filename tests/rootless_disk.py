"""Run as root: gives up root for uid 65534, then has a sandbox write as the tests of disk watches say."""

import asyncio
import concurrent.futures.thread  # noqa: F401  imported late by asyncio, from where uid 65534 may not read
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from handiwork.model.errors import SandboxUnavailableError
from handiwork.model.sandbox import ExecRequest, Limits, SandboxSpec
from handiwork.process import is_root
from handiwork.sandboxes.namespace import NamespaceDriver

SPEC = SandboxSpec(id=f"sbx_watch{os.getpid():08}", limits=Limits(disk_mib=64))
STOPPED_SECONDS = 20.0
LEFT_ALONE_SECONDS = 5.0
"""Some looks are made in this time."""

OVER = {
    "bytes": "head -c 100M /dev/zero >/workspace/large",
    "files": "mkdir /workspace/d; cd /workspace/d; seq 5000 | xargs touch",
    "in a closed directory": "mkdir /workspace/d; head -c 100M /dev/zero >/workspace/d/large;"
    " chmod 000 /workspace/d",
    "nested": "cd /workspace; a=$(nest 1100); mkdir -p a/$a b/$a; mv b a/$a",
}
WITHIN = {
    "hard links": "head -c 30M /dev/zero >/workspace/one; for n in 1 2 3 4 5 6 7 8 9; do"
    " ln /workspace/one /workspace/$n; done",
    "a sparse file": "truncate -s 1G /workspace/sparse; touch /workspace/one",
    "nested as builds nest": "cd /workspace; mkdir -p $(nest 1000)",
    "links that lead out": "ln -s / /workspace/root; touch /workspace/one",
}


NEST = "nest() { printf 'd/%.0s' $(seq $1); }; "


def shell(script):
    return ExecRequest(argv=("sh", "-c", NEST + script), cwd="/", timeout_seconds=60)


async def ended(box, seconds):
    """Why it ended, "" for one that did not in time."""
    try:
        async with asyncio.timeout(seconds):
            return await box.closed()
    except TimeoutError:
        return ""


async def scenario(driver, name):
    """Make a sandbox, have it write, and tell what became of it, awake and when it wakes."""
    box = await driver.create(SPEC)
    try:
        over = name in OVER
        try:
            await box.exec(shell(OVER.get(name) or WITHIN[name]))
        except SandboxUnavailableError:  # it may be gone before its command is
            assert over
        told = [await ended(box, STOPPED_SECONDS if over else LEFT_ALONE_SECONDS)]
        if name == "bytes":
            await driver.sleep(SPEC.id)
            again = await driver.restore(SPEC)
            told.append(await ended(again, STOPPED_SECONDS))
            await driver.sleep(SPEC.id)
            lighter = await driver.restore(SPEC)
            done = await lighter.exec(shell("rm /workspace/large; echo kept >/workspace/small"))
            assert done.exit_code == 0
            told.append(await ended(lighter, LEFT_ALONE_SECONDS))
        return told
    finally:
        await driver.destroy(SPEC.id)


async def main(data_dir: Path, agent: Path, name: str) -> None:
    driver = NamespaceDriver(data_dir, agent, clock=lambda: datetime.now(UTC))
    assert driver.protections()["disk_watch"]
    print(json.dumps(await scenario(driver, name)))


if __name__ == "__main__":
    if is_root():
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
