"""Run as root: gives up root for uid 65534, makes an image of a tar, and runs a command on it."""

import asyncio
import concurrent.futures.thread  # noqa: F401  imported late by asyncio, from where uid 65534 may not read
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from handiwork.model.sandbox import ExecRequest, SandboxSpec
from handiwork.sandboxes.images.reading import file_pieces, unpack
from handiwork.sandboxes.images.store import Images
from handiwork.sandboxes.namespace import NamespaceDriver


def now() -> datetime:
    return datetime.now(UTC)


async def main(data_dir: Path, agent: Path, tar: Path, script: str) -> None:
    images = Images(data_dir / "images")

    async def make(build):
        return await build.unpack(
            lambda d, files, told: unpack(file_pieces(tar), d, files, progress=told)
        )

    info = await images.put("mine", make, source="tree", now=now())
    driver = NamespaceDriver(data_dir, agent, clock=now, images=images)
    spec = SandboxSpec(id="sbx_aaaaaaaa", image="mine")
    box = await driver.create(spec)
    done = await box.exec(ExecRequest(argv=("sh", "-c", script)))
    await driver.destroy(spec.id)
    told = {"digest": info.digest, "code": done.exit_code, "output": done.stdout.decode()}
    print(json.dumps({**told, "error": done.stderr.decode(), "uid": os.geteuid()}))


if __name__ == "__main__":
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    asyncio.run(main(*map(Path, sys.argv[1:4]), sys.argv[4]))
