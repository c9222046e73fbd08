"""The jail's command line: what QEMU is given, and how."""

from pathlib import Path

from handiwork.sandboxes.microvm import jail
from handiwork.sandboxes.microvm.machine import Machine

PARTS = jail.Parts(
    kernel=Path("/data/vmlinux"),
    initrd=Path("/data/initrd"),
    image=Path("/images/x/image.erofs"),
    disk=Path("/states/a/disk"),
    memory=Path("/states/a/memory"),
)
MADE = Machine(
    program="/usr/bin/qemu",
    acceleration="tcg",
    kind="pc",
    memory_mib=300,
    cpus=1,
    **{name: jail.inside(name) for name in ("kernel", "initrd", "image", "disk", "memory")},
)


def made(**more):
    given = {"owner": 5000, "kvm_group": 0, "file_mib": 10, "cgroups": [Path("/cg/a")], **more}
    return jail.argv(Path("/agent"), PARTS, MADE, **given)


def test_only_disk_and_memory_can_be_written():
    line = made()
    binds = [line[at + 1 : at + 4] for at, word in enumerate(line) if word == "--bind"]
    assert binds == [
        ["/data/vmlinux", "kernel", "ro"],
        ["/data/initrd", "initrd", "ro"],
        ["/images/x/image.erofs", "image", "ro"],
        ["/states/a/disk", "disk", "rw"],
        ["/states/a/memory", "memory", "rw"],
    ]
    assert line[:4] == ["/agent", "jail", "--fsize-mib", "10"]
    assert line[line.index("--id") + 1] == "5000"
    assert line[line.index("--cgroup") + 1] == "/cg/a"
    assert "--kvm-group" not in line


def test_qemu_knows_no_path_of_the_host():
    program = made()[made().index("--") + 1 :]
    assert program[0] == "/usr/bin/qemu"
    assert not [word for word in program if "/states" in word or "/data" in word]


def test_an_ordinary_user_gives_no_id_and_kvm_is_asked_for():
    line = made(owner=0, kvm_group=108, cgroups=[])
    assert "--id" not in line
    assert line[line.index("--kvm-group") + 1] == "108"
