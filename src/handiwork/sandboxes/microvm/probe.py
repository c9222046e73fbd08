"""Whether this host can carry machines: proven by making a sandbox in one.

A /dev/kvm that is there need not run guests, so that a loop of instructions comes first: it tells in a
millisecond what a boot would tell after its deadline.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec

from handiwork.model.errors import HandiworkError, SandboxUnavailableError, UnsupportedError
from handiwork.model.sandbox import Limits, SandboxSpec
from handiwork.sandboxes.host import capture
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.microvm import disks, kernel
from handiwork.sandboxes.microvm.driver import MicrovmDriver
from handiwork.sandboxes.microvm.machine import CARRIER
from handiwork.sandboxes.microvm.plan import Setup
from handiwork.sandboxes.probe import Finding, parse_probe

LOOP_SECONDS = 5.0
KVM_BOOT_SECONDS = 3.0
TCG_BOOT_SECONDS = 120.0
PROBE_ID = "check_microvmprobe"
PROBE_LIMITS = Limits(memory_mib=128, disk_mib=64, cpu_percent=100, tmp_mib=16)
USE_TCG = (
    "use a host whose processor virtualises; or, slowly and for tests,"
    ' sandbox.microvm.acceleration = "tcg"'
)


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; `setup` None: no machine runs here."""

    finding: Finding
    setup: Setup | None = None


async def examine(
    agent: Path, asked: Setup, directory: Path, *, clock: Callable[[], datetime]
) -> Examined:
    """Prove what `asked` names, with a sandbox below `directory`; under KVM also the better kind."""
    try:
        await _parts_are_there(agent, asked)
        setup = await _first_that_boots(agent, asked, directory, clock)
    except UnsupportedError as error:
        detail, _, fix = str(error).rpartition(": ")
        return Examined(finding=Finding(name="microvm", ok=False, detail=detail, fix=fix))
    except SandboxUnavailableError as error:
        fix = USE_TCG if asked.acceleration == "kvm" else "see what the machine said"
        return Examined(finding=Finding(name="microvm", ok=False, detail=str(error), fix=fix))
    how = f"boots under {setup.acceleration} as {setup.kind}, its channel over {CARRIER}"
    return Examined(finding=Finding(name="microvm", ok=True, detail=how), setup=setup)


async def _parts_are_there(agent: Path, asked: Setup) -> None:
    disks.find_program("qemu-system-x86_64", "qemu-system-x86")
    disks.find_program("mkfs.ext4", "e2fsprogs")
    disks.find_program("mkfs.erofs", "erofs-utils")
    kernel.find_kernel(asked.kernel_dir)
    if asked.acceleration == "kvm":
        _, output = await capture([str(agent), "kvm"], LOOP_SECONDS)
        reason = parse_probe(output).get("kvm", f"no answer in {LOOP_SECONDS:g} s")
        if reason:
            raise UnsupportedError(f"/dev/kvm runs no guest ({reason}): {USE_TCG}")


async def _first_that_boots(
    agent: Path, asked: Setup, directory: Path, clock: Callable[[], datetime]
) -> Setup:
    if asked.acceleration == "tcg":
        await _boot(agent, asked, directory, clock, TCG_BOOT_SECONDS)
        return asked
    faster = msgspec.structs.replace(asked, kind="microvm")
    try:
        await _boot(agent, faster, directory, clock, KVM_BOOT_SECONDS)
    except SandboxUnavailableError:
        plain = msgspec.structs.replace(asked, kind="pc")
        await _boot(agent, plain, directory, clock, KVM_BOOT_SECONDS)
        return plain
    return faster


async def _boot(
    agent: Path, setup: Setup, directory: Path, clock: Callable[[], datetime], seconds: float
) -> None:
    image = await _empty_image(directory)
    driver = MicrovmDriver(directory, agent, _OneImage(image), setup, clock=clock)
    try:
        async with asyncio.timeout(seconds):
            await driver.create(SandboxSpec(id=PROBE_ID, limits=PROBE_LIMITS))
    except TimeoutError:
        raise SandboxUnavailableError(
            f"a machine under {setup.acceleration} as {setup.kind} did not boot in {seconds:g} s"
        ) from None
    except HandiworkError as error:
        raise SandboxUnavailableError(f"no machine under {setup.acceleration}: {error}") from error
    finally:
        await driver.destroy(PROBE_ID)


async def _empty_image(directory: Path) -> Image:
    """Return a root file system without a file: the agent brings all that it needs."""
    tree, erofs, roots = directory / "empty", directory / "empty.erofs", directory / "roots.pem"
    if not erofs.exists():
        tree.mkdir(parents=True)
        roots.write_bytes(b"")
        program = disks.find_program("mkfs.erofs", "erofs-utils")
        code, told = await capture([program, str(erofs), str(tree)], LOOP_SECONDS)
        if code:
            raise SandboxUnavailableError(f"mkfs.erofs ended with {code}: {told[:200]}")
        erofs.chmod(0o644)
    return Image(digest="0" * 64, tree=tree, erofs=erofs, roots=roots)


class _OneImage:
    """The source of one image."""

    def __init__(self, image: Image) -> None:
        self._image = image

    async def resolve(self, name: str) -> Image:
        return self._image

    async def find(self, digest: str) -> Image:
        return self._image
