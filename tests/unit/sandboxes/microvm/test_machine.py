"""The command line: what every machine has, and what none may have."""

import msgspec
import pytest

from handiwork.sandboxes.microvm.machine import Machine, argv

MACHINE = Machine(
    program="/usr/bin/qemu",
    acceleration="tcg",
    kind="pc",
    memory_mib=352,
    cpus=2,
    kernel="/kernel",
    initrd="/initrd",
    image="/image",
    disk="/disk",
    memory="/me,mory",
)


def changed(**more):
    return argv(msgspec.structs.replace(MACHINE, **more))


def values(line, option):
    return [line[at + 1] for at, word in enumerate(line) if word == option]


@pytest.mark.parametrize("kind", ["pc", "microvm"])
@pytest.mark.parametrize("acceleration", ["tcg", "kvm"])
def test_what_every_machine_has(kind, acceleration):
    line = changed(kind=kind, acceleration=acceleration)
    assert line[0] == "/usr/bin/qemu"
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(line)
    assert values(line, "-sandbox") == [
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    ]
    assert not [word for word in line if "netdev" in word or word in ("-nic", "-net", "-display")]
    devices = [
        device.split(",")[0].rpartition("-")[0] or device for device in values(line, "-device")
    ]
    assert [device.split(",")[0] for device in devices] == [
        *("virtio-serial", "virtserialport", "virtserialport", "virtserialport"),
        *("virtio-blk", "virtio-blk"),
    ]
    assert values(line, "-machine")[0].split(",")[0] == kind
    assert values(line, "-accel")[0].split(",")[0] == acceleration
    assert values(line, "-m") == ["352M"]
    assert values(line, "-smp") == ["2"]


def test_the_image_is_read_only_and_the_disk_is_not():
    image, disk = values(changed(), "-blockdev")
    assert "read-only=on" in image
    assert image.endswith("file.filename=/image")
    assert "read-only=off" in disk


def test_a_comma_in_a_path_begins_no_option():
    assert "mem-path=/me,,mory,share=on" in values(changed(), "-object")[0]


def test_only_a_waking_machine_waits():
    assert values(changed(), "-incoming") == []
    assert values(changed(waking=True), "-incoming") == ["defer"]


def test_only_an_emulated_machine_leaves_its_mitigations_off():
    assert "mitigations=off" in values(changed(), "-append")[0]
    assert "mitigations=off" not in values(changed(acceleration="kvm"), "-append")[0]
