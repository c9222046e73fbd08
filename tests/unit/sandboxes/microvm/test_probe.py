"""The probe on hosts that lack one thing: it says which, and what to do."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from handiwork.model.errors import UnsupportedError
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.microvm import disks, kernel, probe
from handiwork.sandboxes.microvm.kernel import Boot
from handiwork.sandboxes.microvm.plan import Setup
from stand_in_machines import MACHINE

KVM = Setup(acceleration="kvm", kind="pc")
TCG = msgspec.structs.replace(KVM, acceleration="tcg")


@pytest.fixture
def examined(tmp_path, monkeypatch):
    """Examine a host on which all parts are there, and the guest program is a script."""
    monkeypatch.setattr(disks, "find_program", lambda name, _: f"/usr/bin/{name}")
    monkeypatch.setattr(kernel, "find_kernel", lambda root: None)
    boot = Boot(kernel=tmp_path / "k", initrd=tmp_path / "i", digest="b")
    monkeypatch.setattr(kernel, "make_boot", lambda *_: boot)
    blank = tmp_path / "blank"
    disks.make_sparse(blank, 1)

    async def blank_disk(directory, mib):
        return blank

    async def empty_image(directory):
        return Image(digest="d", tree=tmp_path, erofs=tmp_path / "e", roots=tmp_path / "r")

    monkeypatch.setattr(disks, "blank_disk", blank_disk)
    monkeypatch.setattr(probe, "_empty_image", empty_image)

    async def run(script, asked):
        agent = tmp_path / "agent"
        agent.write_text(f"#!/bin/sh\n{script}\n")
        agent.chmod(0o755)
        return await probe.examine(
            agent, asked, tmp_path / "probe", clock=lambda: datetime.now(UTC)
        )

    return run


async def test_a_device_that_runs_no_guest_is_told(examined):
    script = "echo 'kvm failed speed: 2400 ns an instruction, it is emulated'; exit 1"
    found = await examined(script, KVM)
    assert found.setup is None
    assert "2400 ns" in found.finding.detail
    assert "tcg" in found.finding.fix


async def test_a_silent_loop_is_told(examined):
    found = await examined("exit 3", KVM)
    assert "no answer" in found.finding.detail


async def test_a_loop_is_not_enough_and_both_kinds_are_tried(examined, tmp_path):
    script = f"""case $1 in kvm) echo kvm ok 900;; *) echo "$@" >>{tmp_path}/tried;
echo handiwork-guest: no such machine >&2; exit 1;; esac"""
    found = await examined(script, KVM)
    assert found.setup is None
    assert "no such machine" in found.finding.detail
    tried = (tmp_path / "tried").read_text().splitlines()
    assert ["-machine microvm" in line for line in tried] == [True, False]
    assert not list(Path(tmp_path / "probe/microvm/states").iterdir())


async def test_emulation_asks_no_kvm(examined):
    found = await examined("test $1 = jail && echo handiwork-guest: not here >&2", TCG)
    assert "under tcg" in found.finding.detail
    assert "not here" in found.finding.detail


async def test_how_machines_run_here_is_told(examined, tmp_path):
    script = f'exec {sys.executable} -I {MACHINE} {tmp_path}/log "$@"'
    found = await examined(script, TCG)
    assert found.finding.detail == "boots under tcg as pc, its channel over virtio-serial"
    assert (found.finding.ok, found.setup) == (True, TCG)


async def test_what_is_missing_is_named(examined, monkeypatch):
    def missing(name, package):
        raise UnsupportedError(f"{name} is not installed: apt-get install {package}")

    monkeypatch.setattr(disks, "find_program", missing)
    found = await examined("exit 0", TCG)
    assert found.finding.detail == "qemu-system-x86_64 is not installed"
    assert found.finding.fix == "apt-get install qemu-system-x86"
