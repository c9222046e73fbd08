"""A microvm driver whose machines are stand-ins: each answers on its ports, and runs nothing."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from handiwork.model.sandbox import SandboxExit, SandboxSpec
from handiwork.observe.metrics import Metrics
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.microvm import disks
from handiwork.sandboxes.microvm.driver import MicrovmDriver
from handiwork.sandboxes.microvm.kernel import Boot
from handiwork.sandboxes.microvm.plan import Setup

MACHINE = Path(__file__).with_name("stand_in_machine.py")
EXIT = SandboxExit(socket_path="/exits/own.sock", ca_certificate="ITS OWN CA\n")
NOW = datetime(2026, 1, 2, tzinfo=UTC)
START, RESUME, HOLD, CLAIM = "1234"


class OneImage:
    """One image under every name."""

    def __init__(self, image):
        self.image = image

    async def resolve(self, name):
        return self.image

    async def find(self, digest):
        return self.image


def without_tools(directory, monkeypatch):
    """Have disks of 1 MiB that nobody formats, and programs that are never looked for."""
    monkeypatch.setattr(disks, "find_program", lambda name, _: f"/usr/bin/{name}")
    blank = directory / "blank"
    disks.make_sparse(blank, 1)

    async def blank_disk(_directory, _mib):
        return blank

    monkeypatch.setattr(disks, "blank_disk", blank_disk)


def stand_in_driver(directory, monkeypatch, *, first_id=0):
    """Return a driver below a directory, whose disks hold 1 MiB; what its machines are told is in LOG."""
    without_tools(directory, monkeypatch)
    agent = directory / "agent"
    agent.write_text(f'#!/bin/sh\nexec {sys.executable} -I {MACHINE} {directory}/log "$@"\n')
    agent.chmod(0o755)
    roots = directory / "roots.pem"
    roots.write_text("ROOTS\n")
    image = Image(digest="d", tree=directory, erofs=directory / "i.erofs", roots=roots)
    drawn: Iterator[int] = iter(range(1, 200))
    made = MicrovmDriver(
        directory / "data",
        agent,
        OneImage(image),
        Setup(acceleration="tcg", kind="pc", first_id=first_id),
        clock=lambda: NOW,
        entropy=lambda size: bytes([next(drawn)]) * size,
        metrics=Metrics(),
    )
    made._boot = Boot(kernel=directory / "k", initrd=directory / "i", digest="b")
    return made


async def end(driver):
    await driver.prepare(())
    for sandbox_id in await driver.leftovers():
        await driver.destroy(sandbox_id)


def states(directory):
    return sorted(entry.name for entry in (directory / "data/microvm/states").iterdir())


def told(directory):
    """Return what all machines were told: (kind of order, payload), (command of the monitor, b"")."""
    lines = (directory / "log").read_text().splitlines()
    return [(kind, bytes.fromhex(payload)) for kind, payload in (one.split("|") for one in lines)]


def kinds(directory):
    return [kind for kind, _ in told(directory)]


def spec(number, **more):
    return SandboxSpec(id=f"sbx_standin{number:02}", **{"exit": EXIT, **more})
