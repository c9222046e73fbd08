"""Run as root: gives up root for uid 65534, then takes snapshots of a sandbox, or makes it again.

`take` ends itself with SIGKILL while the sandbox runs, after one line of JSON; `again` goes on in its place.
"""

import asyncio
import concurrent.futures.thread  # noqa: F401  imported late by asyncio, from where uid 65534 may not read
import json
import os
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from generation_taking import take
from handiwork.model.sandbox import ExecRequest, SandboxSpec
from handiwork.process import is_root
from handiwork.sandboxes.namespace import NamespaceDriver
from handiwork.store.object_blobs import ObjectBlobs
from snapshot_child import generations_in

SPEC = SandboxSpec(id="sbx_rootless")
FORK = SandboxSpec(id="sbx_forked00")
TOLD = "cat a; readlink c; stat -c %h a; ls /var | grep -c backups; stat -c %a h; cat h"


async def said(box, script):
    request = ExecRequest(argv=("sh", "-c", script), cwd="/workspace")
    return (await box.exec(request)).stdout.decode()


async def remake(driver, generations, number, target):
    manifest = generations.load(SPEC.id, number)

    async def make(place, ids):
        stop = threading.Event()
        return await asyncio.to_thread(generations.make, manifest, ids, place, "upper", stop)

    forked = target != SPEC.id
    await driver.remake(target, manifest.head.image, SPEC.limits.disk_mib, make, forked=forked)


async def first(driver, generations):
    box = await driver.create(SPEC)
    await said(
        box,
        "head -c 3M /dev/urandom > r; echo one > a; ln a b; ln -s a c; rm -r /var/backups; echo hidden > h; chmod 0 h",
    )
    added = [(await take(driver, generations, SPEC.id)).head.new_bytes]
    await said(box, "echo two >> a")
    added.append((await take(driver, generations, SPEC.id)).head.new_bytes)
    await said(box, "echo three >> a; sync")
    print(json.dumps({"uid": os.geteuid(), "added": added}), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


async def second(driver, generations):
    told = {"left": await driver.leftovers()}
    told["woken"] = await said(await driver.restore(SPEC), TOLD)
    await driver.sleep(SPEC.id)
    await remake(driver, generations, 1, SPEC.id)
    told["rolled back"] = await said(await driver.restore(SPEC), TOLD)
    told["can fork"] = driver.can_fork(SPEC.id)
    await remake(driver, generations, 2, FORK.id)
    told["forked"] = await said(await driver.restore(FORK), TOLD)
    for spec in (SPEC, FORK):
        await driver.destroy(spec.id)
    print(json.dumps(told))


async def main(data_dir: Path, agent: Path, phase: str) -> None:
    driver = NamespaceDriver(data_dir, agent, clock=lambda: datetime.now(UTC))
    generations = generations_in(ObjectBlobs.in_directory(data_dir / "blobs"))
    await {"take": first, "again": second}[phase](driver, generations)


if __name__ == "__main__":
    if is_root():
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
