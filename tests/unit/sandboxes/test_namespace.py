"""The driver around launchers that fail: one line says why, nothing is left."""

import asyncio
import sys
from datetime import UTC, datetime

import pytest

from handiwork.model.errors import (
    ConfigError,
    NotFoundError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.model.sandbox import Limits, SandboxExit, SandboxSpec
from handiwork.sandboxes.namespace import NamespaceDriver
from handiwork.sandboxes.protocol import Wish

SPEC = SandboxSpec(id="sbx_aaaaaaaa")


@pytest.fixture
def driver_of(tmp_path):
    def make(script):
        agent = tmp_path / "agent"
        agent.write_text(f"#!/bin/sh\n{script}\n")
        agent.chmod(0o755)
        return NamespaceDriver(tmp_path / "data", agent, clock=lambda: datetime.now(UTC))

    return make


def left(tmp_path):
    return [entry.name for entry in (tmp_path / "data/sandboxes").iterdir()]


async def test_the_launchers_line_is_told_and_nothing_is_left(driver_of, tmp_path):
    driver = driver_of("echo 'handiwork-guest: overlay: No such device' >&2; exit 125")
    with pytest.raises(SandboxUnavailableError, match=r"overlay: No such device.*doctor"):
        await driver.create(SPEC)
    assert left(tmp_path) == []


async def test_a_silent_launcher_is_given_up(driver_of, tmp_path, monkeypatch):
    monkeypatch.setattr("handiwork.sandboxes.namespace.HELLO_SECONDS", 0.05)
    monkeypatch.setattr("handiwork.sandboxes.host.STOP_SECONDS", 0.05)
    with pytest.raises(SandboxUnavailableError, match="said nothing"):
        await driver_of("exec sleep 60").create(SPEC)
    assert left(tmp_path) == []


@pytest.mark.parametrize("way", ["read", "write"])
async def test_a_rate_that_cannot_hold_is_refused_before_anything_is_made(
    driver_of, tmp_path, monkeypatch, way
):
    monkeypatch.setattr("handiwork.sandboxes.disks.can_limit_disks", lambda: False)
    driver = driver_of("echo started >&2; exit 1")
    assert not driver.protections()[f"disk_{way}_rate"]
    limits = Limits(**{f"disk_{way}_mib_per_second": 5})
    with pytest.raises(UnsupportedError, match=f"disk_{way}_mib_per_second cannot hold here"):
        await driver.create(SandboxSpec(id="sbx_aaaaaaaa", limits=limits))
    assert left(tmp_path) == []


TOO_MUCH = """
import os, socket, struct, sys
channel = socket.socket(fileno=3)
channel.sendall(struct.pack("<IIB3xII", 8, 0, 64, 1, 1))
argv = sys.argv
open(argv[0] + ".argv", "w").write(" ".join(argv))
os.write(2, b"handiwork-guest: disk: its files take more than 64 MiB\\n")
"""


async def test_one_that_outgrew_its_limit_says_so(driver_of, tmp_path, monkeypatch):
    """The launcher, which looks, tells it before it ends the agent."""
    monkeypatch.setattr("handiwork.sandboxes.disks.can_limit_disks", lambda: False)
    (tmp_path / "agent.py").write_text(TOO_MUCH)
    driver = driver_of(f'exec {sys.executable} "{tmp_path}/agent.py" "$@"')
    assert driver.protections()["disk_watch"]
    assert not driver.protections()["disk_limit"]
    box = await driver.create(SandboxSpec(id="sbx_aaaaaaaa", limits=Limits(disk_mib=64)))
    reason = await box.closed()
    assert reason.startswith("it is over disk_mib = 64: its files take more than 64 MiB; it is")
    assert "--watched-mib 64" in (tmp_path / "agent.py.argv").read_text()
    await driver.destroy(box.id)


async def test_a_cancelled_create_leaves_nothing(driver_of, tmp_path):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(driver_of("exec sleep 60").create(SPEC), 0.3)
    assert left(tmp_path) == []


async def test_a_failed_restore_keeps_the_state(driver_of, tmp_path):
    driver = driver_of("exit 125")
    state = tmp_path / "data/sandboxes" / SPEC.id / "upper"
    state.mkdir(parents=True)
    (state / "file").write_text("kept")
    with pytest.raises(SandboxUnavailableError):
        await driver.restore(SPEC)
    assert (state / "file").read_text() == "kept"
    assert await driver.leftovers() == [SPEC.id]


WISH = Wish(image="host", limits=Limits(), sandboxes=1)


async def test_one_that_cannot_be_made_ahead_is_told_and_leaves_nothing(driver_of, tmp_path):
    driver = driver_of("echo 'handiwork-guest: overlay: No such device' >&2; exit 125")
    with pytest.raises(SandboxUnavailableError, match=r"overlay: No such device.*doctor"):
        await driver.prepare([WISH])
    assert left(tmp_path) == []


async def test_no_room_for_one_is_told_as_a_fault_of_ours(driver_of, tmp_path):
    driver = driver_of("exit 125")
    (tmp_path / "data/sandboxes").rmdir()
    with pytest.raises(SandboxUnavailableError, match="nothing could be made ready"):
        await driver.prepare([WISH])


async def test_a_silent_one_is_not_kept_ready(driver_of, tmp_path, monkeypatch):
    monkeypatch.setattr("handiwork.sandboxes.namespace.HELLO_SECONDS", 0.05)
    monkeypatch.setattr("handiwork.sandboxes.host.STOP_SECONDS", 0.05)
    with pytest.raises(SandboxUnavailableError, match="did not stand"):
        await driver_of("exec sleep 60").prepare([WISH])
    assert left(tmp_path) == []


async def test_a_missing_program_is_told(tmp_path):
    driver = NamespaceDriver(tmp_path / "data", tmp_path / "none", clock=lambda: datetime.now(UTC))
    with pytest.raises(UnsupportedError, match=r"guest/build\.sh"):
        await driver.create(SPEC)
    assert left(tmp_path) == []


async def test_what_is_refused_before_anything_is_made(driver_of, tmp_path):
    driver = driver_of("exit 1")
    with pytest.raises(UnsupportedError, match="no image"):
        await driver.create(SandboxSpec(id=SPEC.id, image="debian"))
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY"):
        await driver.create(SandboxSpec(id=SPEC.id, env={"ANTHROPIC_API_KEY": "x"}))
    with pytest.raises(ConfigError, match="not valid"):
        await driver.create(SandboxSpec(id="../x"))
    with pytest.raises(NotFoundError):
        await driver.sleep(SPEC.id)
    await driver.destroy(SPEC.id)
    assert left(tmp_path) == []


async def test_the_exit_and_its_bundle_are_passed(driver_of, tmp_path):
    told = tmp_path / "told"
    driver = driver_of(f'echo "$@" >{told}; cat data/sandboxes/*/bundle.pem >/dev/null; exit 1')
    spec = SandboxSpec(
        id=SPEC.id, exit=SandboxExit(socket_path="/run/x.sock", ca_certificate="OUR CA\n")
    )
    with pytest.raises(SandboxUnavailableError):
        await driver.create(spec)
    arguments = told.read_text().split()
    assert arguments[arguments.index("--exit") + 1] == "/run/x.sock"
    assert arguments[arguments.index("--bundle") + 1].endswith(f"{SPEC.id}/bundle.pem")
    assert arguments[:3] == ["launch", "--channel", "3"]
