"""The command line of QEMU's jail: what it is given of this host, and nothing else. Pure."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from handiwork.sandboxes.microvm import machine
from handiwork.sandboxes.microvm.machine import Machine


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one machine as this host knows them."""

    kernel: Path
    initrd: Path
    image: Path
    disk: Path
    memory: Path


def inside(name: str) -> str:
    """Return the path that a part has in the jail."""
    return f"/{name}"


def argv(
    agent: Path,
    parts: Parts,
    made: Machine,
    *,
    owner: int,
    kvm_group: int,
    file_mib: int,
    cgroups: Sequence[Path],
) -> list[str]:
    """Return the command line; `owner` 0: in a user namespace of ours, `kvm_group` 0: without KVM."""
    line = [str(agent), "jail", "--fsize-mib", str(file_mib)]
    if owner:
        line += ["--id", str(owner)]
    if kvm_group:
        line += ["--kvm-group", str(kvm_group)]
    for group in cgroups:
        line += ["--cgroup", str(group)]
    for name in Parts.__struct_fields__:
        mode = "rw" if name in {"disk", "memory"} else "ro"
        line += ["--bind", str(getattr(parts, name)), name, mode]
    return [*line, "--", *machine.argv(made)]
