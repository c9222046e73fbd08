"""Machines for tests: emulated, from a kernel that `./run test` unpacks, on parts of this host's /usr."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handiwork.model.errors import HandiworkError
from handiwork.model.sandbox import Limits, SandboxSpec
from handiwork.sandboxes.images.sample import SampleImages
from handiwork.sandboxes.microvm.driver import MicrovmDriver
from handiwork.sandboxes.microvm.kernel import find_kernel
from handiwork.sandboxes.microvm.machine import Acceleration, MachineKind
from handiwork.sandboxes.microvm.plan import Setup
from handiwork.sandboxes.namespace import DEFAULT_AGENT

KERNEL_DIR = Path(__file__).parents[1] / ".kernel"
LIMITS = Limits(memory_mib=256, disk_mib=1024, cpu_percent=100, pids=96)
FIRST_ID = 3 << 29


def kernel_dir() -> Path:
    """Return where the kernel of machines is: what `./run test` unpacked, or this host's own."""
    return KERNEL_DIR if KERNEL_DIR.is_dir() else Path("/")


def _has_kernel() -> bool:
    try:
        find_kernel(kernel_dir())
    except HandiworkError:
        return False
    return True


needs_kernel = pytest.mark.skipif(
    not _has_kernel(), reason="needs a kernel for machines: apt here has no linux-image-cloud-amd64"
)


def setup(acceleration: Acceleration = "tcg", kind: MachineKind = "pc") -> Setup:
    """Machines of the kernel that there is."""
    return Setup(
        acceleration=acceleration,
        kind=kind,
        kernel_dir=kernel_dir(),
        first_id=FIRST_ID if os.geteuid() == 0 else 0,
    )


def make_driver(
    directory: Path, agent: Path = DEFAULT_AGENT, asked: Setup | None = None
) -> MicrovmDriver:
    """Two drivers on one directory share its image and its kernel."""
    return MicrovmDriver(
        directory / "data",
        agent,
        SampleImages(directory / "image"),
        asked or setup(),
        clock=lambda: datetime.now(UTC),
    )


def spec(sandbox_id: str, **more: object) -> SandboxSpec:
    return SandboxSpec(id=sandbox_id, limits=LIMITS, **more)
