"""What a machine is made from: its order with and without a claim, and what makes another shape."""

from pathlib import Path

import pytest

from handiwork.model.errors import UnsupportedError
from handiwork.model.sandbox import Limits, SandboxExit, SandboxSpec
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.microvm import disks
from handiwork.sandboxes.microvm.kernel import Boot
from handiwork.sandboxes.microvm.plan import BUNDLE, KERNEL_MIB, Setup, plan_of

BOOT = Boot(kernel=Path("/k"), initrd=Path("/i"), digest="b")
SETUP = Setup(acceleration="tcg", kind="pc")
EXIT = SandboxExit(socket_path="/exits/own", ca_certificate="ITS OWN CA\n")
SPEC = SandboxSpec(id="sbx_aaaaaaaa", exit=EXIT)


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.setattr(disks, "find_program", lambda name, _: f"/usr/bin/{name}")
    roots = tmp_path / "roots.pem"
    roots.write_text("ROOTS\n\n")

    def made(spec=SPEC, *, erofs=Path("/e"), digest="d", boot=BOOT, waits=False):
        image = Image(digest=digest, tree=tmp_path, erofs=erofs, roots=roots)
        return plan_of(tmp_path / "state", spec, image, boot, SETUP, waits=waits)

    return made


def test_a_way_out_comes_with_its_trust_or_not_at_all(plan):
    order = plan().order
    assert order.files[BUNDLE] == b"ROOTS\nITS OWN CA\n"
    assert ("--exit" in order.arguments, "--await-claim" in order.arguments) == (True, False)
    closed = plan(SandboxSpec(id=SPEC.id)).order
    assert BUNDLE not in closed.files
    assert "--exit" not in closed.arguments


def test_one_that_waits_is_told_nothing_of_a_sandbox(plan):
    order = plan(SandboxSpec(id="pool-1"), waits=True).order
    assert "--await-claim" in order.arguments
    assert "--exit" not in order.arguments
    assert order.files[BUNDLE] == b"ROOTS\n"


def test_the_files_are_the_states_and_the_images(plan, tmp_path):
    parts = plan().parts
    assert (parts.disk, parts.memory) == (tmp_path / "state/disk", tmp_path / "state/memory")
    assert (parts.image, parts.kernel, parts.initrd) == (Path("/e"), Path("/k"), Path("/i"))
    with pytest.raises(UnsupportedError, match="build an image"):
        plan(erofs=None)


@pytest.mark.parametrize(("cpu_percent", "cpus"), [(1, 1), (100, 1), (101, 2), (100_000, 2)])
def test_memory_and_processors_are_of_its_limits(plan, monkeypatch, cpu_percent, cpus):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    made = plan(SandboxSpec(id=SPEC.id, limits=Limits(cpu_percent=cpu_percent))).made
    assert made.cpus == cpus
    assert made.memory_mib == Limits().memory_mib + KERNEL_MIB


def test_the_shape_tells_all_that_memory_is_made_from(plan):
    other = SandboxExit(socket_path="/exits/own", ca_certificate="ANOTHER CA\n")
    shapes = [
        plan().shape,
        plan(SandboxSpec(id=SPEC.id, exit=other)).shape,
        plan(SandboxSpec(id=SPEC.id)).shape,
        plan(SandboxSpec(id=SPEC.id, exit=EXIT, hostname="other")).shape,
        plan(SandboxSpec(id=SPEC.id, exit=EXIT, limits=Limits(pids=9))).shape,
        plan(digest="other").shape,
        plan(boot=Boot(kernel=Path("/k"), initrd=Path("/i"), digest="other")).shape,
    ]
    assert len(set(shapes)) == len(shapes)
    assert plan().shape == shapes[0]
    moved = SandboxExit(socket_path="/exits/new", ca_certificate=EXIT.ca_certificate)
    assert plan(SandboxSpec(id=SPEC.id, exit=moved)).shape == shapes[0]  # a way out may move
