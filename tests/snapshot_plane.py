"""A control plane of a test's own, asked through the client, whose disks are lost and damaged."""

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import control_plane_process
from control_plane_process import ControlPlane
from handiwork.client.handiwork import Handiwork
from handiwork.client.sandboxes import Sandbox
from handiwork.sandboxes.disks import can_limit_disks
from image_userland import userland
from microvm_world import kernel_dir

SECONDS = 60.0
START_SECONDS = 120.0


@dataclass(frozen=True)
class How:
    """Whose sandboxes, and of which tier: what a control plane is started with, and what differs then.

    `image`: one that is to be imported first, where the tier has no use for this host's own /usr.
    """

    config: str = ""
    through: tuple[str, ...] = ()
    rootless: bool = os.geteuid() != 0
    image: str = ""

    @property
    def forks(self) -> bool:
        """Whether sandboxes have disks of their own, which are copied or shared."""
        return can_limit_disks() and not self.rootless

    def owner(self, uid: str) -> str:
        """Who owns what was given to somebody: an ordinary user's sandbox has root alone."""
        return "0" if self.rootless else uid

    async def ready(self, client: Handiwork, directory: Path) -> None:
        """Have the image that its sandboxes stand on."""
        if self.image:
            archive = directory / "image.tar"
            archive.write_bytes(userland())
            await client.images.import_archive(self.image, archive)


USUAL = How()
GVISOR = How(config='[sandbox]\ntier = "gvisor"\n')
MICROVM = How(
    config='[sandbox]\ntier = "microvm"\nimage = "small"\n[sandbox.pool]\nready = 0\n'
    f'[sandbox.microvm]\nacceleration = "tcg"\nkernel_dir = "{kernel_dir()}"\n',
    rootless=False,
    image="small",
)
"""Emulated; a machine has all ids inside, whoever runs it."""
ROOTLESS = How(through=("unshare", "-Ur"), rootless=True)
"""Root of a user namespace with one id: what an ordinary user is, and may yet read this Python."""


def started(directory: Path, config: str, how: How = USUAL) -> ControlPlane:
    return control_plane_process.start(
        directory, config=config + how.config, seconds=START_SECONDS, through=how.through
    )


def running(directory: Path, config: str, how: How = USUAL) -> AbstractContextManager[ControlPlane]:
    return control_plane_process.running(
        directory, config=config + how.config, seconds=START_SECONDS, through=how.through
    )


def asked(plane: ControlPlane, verb: Callable[[Handiwork], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with Handiwork(socket=plane.socket) as client:
            return await verb(client)

    return asyncio.run(run())


async def until(what: Callable[[], Awaitable[Any]]) -> Any:
    limit = time.monotonic() + SECONDS
    while not (found := await what()):
        assert time.monotonic() < limit, "it did not come"
        await asyncio.sleep(0.1)
    return found


async def text(box: Sandbox, command: str) -> str:
    result = await box.exec(command)
    return (result.stdout + result.stderr).decode().strip()


def lose(plane: ControlPlane, sandbox_id: str) -> None:
    """Lose what this host has of a sandbox, as with a broken disk."""
    places = (f"**/sandboxes/{sandbox_id}", f"**/states/{sandbox_id}")
    (state,) = (one for place in places for one in (plane.data / "sandboxes").glob(place))
    shutil.rmtree(state)


def damage(pack: Path) -> None:
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.write_bytes(content)
