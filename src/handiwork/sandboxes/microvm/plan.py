"""What one machine is made from, besides its disk: the files it is given, its devices, its first order."""

import hashlib
import os
from pathlib import Path

import msgspec

from handiwork.model.errors import UnsupportedError
from handiwork.model.sandbox import Limits, SandboxSpec
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.microvm import disks, jail, kernel, machine, orders
from handiwork.sandboxes.microvm.states import DISK, MEMORY

KERNEL_MIB = 96
"""Memory of a machine beyond what its sandbox may use: its kernel, our program, tables of pages."""

GUEST_FIRST_ID = 1 << 30
"""Inside, the sandbox has a range of ids of its own as on a host."""

CGROUP = "/sys/fs/cgroup"
BUNDLE = "/run/bundle.pem"
"""What its programs trust; a claim adds the CA of its exit."""

SHM_MIB = 64


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What runs machines here, from which kernel and under which host ids.

    `first_id` 0: as ourselves, for those who are not root.
    """

    acceleration: machine.Acceleration
    kind: machine.MachineKind
    kernel_dir: Path = Path("/")
    first_id: int = 0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One machine. `shape` is a digest of all that its memory is made from, besides its disk.

    `waits`: for a claim, with which its exit comes.
    """

    parts: jail.Parts
    made: machine.Machine
    order: orders.Start
    shape: str
    waits: bool


def plan_of(
    state: Path,
    spec: SandboxSpec,
    image: Image,
    boot: kernel.Boot,
    setup: Setup,
    *,
    waits: bool = False,
) -> Plan:
    """Return the machine of a sandbox whose state lies in a directory; UnsupportedError.

    `waits`: for a claim, with which its exit comes.
    """
    made, order = _machine(spec.limits, setup), _order(spec, image, waits=waits)
    return Plan(
        parts=_parts(state, spec, image, boot),
        made=made,
        order=order,
        shape=_shape(made, order, boot, image),
        waits=waits,
    )


def _parts(state: Path, spec: SandboxSpec, image: Image, boot: kernel.Boot) -> jail.Parts:
    if image.erofs is None:
        raise UnsupportedError(
            f"the microvm tier has no image {spec.image[:80]!r} as one file: it cannot lend a"
            " machine this host's own /usr; build an image"
        )
    return jail.Parts(
        kernel=boot.kernel,
        initrd=boot.initrd,
        image=image.erofs,
        disk=state / DISK,
        memory=state / MEMORY,
    )


def _machine(limits: Limits, setup: Setup) -> machine.Machine:
    return machine.Machine(
        program=disks.find_program("qemu-system-x86_64", "qemu-system-x86"),
        acceleration=setup.acceleration,
        kind=setup.kind,
        memory_mib=limits.memory_mib + KERNEL_MIB,
        cpus=max(1, min(-(-limits.cpu_percent // 100), os.cpu_count() or 1)),
        kernel=jail.inside("kernel"),
        initrd=jail.inside("initrd"),
        image=jail.inside("image"),
        disk=jail.inside("disk"),
        memory=jail.inside("memory"),
    )


def _order(spec: SandboxSpec, image: Image, *, waits: bool) -> orders.Start:
    limits = spec.limits
    group = f"{CGROUP}/sandbox"
    files = {
        f"{CGROUP}/cgroup.subtree_control": b"+memory +pids",
        group: b"",
        f"{group}/memory.max": str(limits.memory_mib << 20).encode(),
        f"{group}/pids.max": str(limits.pids).encode(),
        "/proc/sys/vm/dirty_writeback_centisecs": b"20",
        "/proc/sys/vm/dirty_expire_centisecs": b"40",
    }
    arguments = ["--channel", "3", "--root", "/image", "--state", "/state"]
    arguments += ["--hostname", spec.hostname, "--id-base", str(GUEST_FIRST_ID)]
    arguments += ["--tmp-mib", str(limits.tmp_mib), "--shm-mib", str(SHM_MIB)]
    arguments += ["--nofile", str(limits.open_files), "--fsize-mib", str(limits.file_size_mib)]
    arguments += ["--cgroup", group]
    if waits:
        arguments += ["--await-claim"]
    if spec.exit is not None:
        arguments += ["--exit", "/run/exit"]
    if spec.exit is not None or waits:
        more = spec.exit.ca_certificate.encode() if spec.exit else b""
        files[BUNDLE] = image.roots.read_bytes().rstrip() + b"\n" + more
        arguments += ["--bundle", BUNDLE]
    return orders.Start(owner=GUEST_FIRST_ID, files=files, arguments=arguments)


def _shape(made: machine.Machine, order: orders.Start, boot: kernel.Boot, image: Image) -> str:
    parts = [machine.argv(made), boot.digest, image.digest, order.owner, list(order.arguments)]
    files = {path: content.decode() for path, content in order.files.items()}
    return hashlib.sha256(msgspec.json.encode([parts, files])).hexdigest()
