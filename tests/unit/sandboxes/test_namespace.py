"""The driver around launchers that fail: one line says why, nothing is left."""

import asyncio
import contextlib
import sys
import threading
from datetime import UTC, datetime

import msgspec
import pytest
import structlog

from handiwork.model.errors import (
    ConfigError,
    NotFoundError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.model.sandbox import Limits, SandboxExit, SandboxSpec
from handiwork.process import is_root
from handiwork.sandboxes.marks import BOOT, UNFLUSHED
from handiwork.sandboxes.namespace import NamespaceDriver
from handiwork.sandboxes.protocol import Wish
from handiwork.sandboxes.states import Meta, States

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


@pytest.mark.parametrize("own", [True, False])
async def test_clocks_of_the_host_are_told_once(driver_of, monkeypatch, own):
    monkeypatch.setattr("handiwork.sandboxes.namespace.has_own_clocks", lambda: own)
    driver = driver_of("exit 125")
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(SandboxUnavailableError):
                await driver.create(SPEC)
    told = [one["event"] for one in logs if one["log_level"] == "warning"]
    assert told == ([] if own else ["sandbox.clocks_of_the_host"])
    assert driver.protections()["own_clocks"] is own


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
    with pytest.raises(UnsupportedError, match=r"`\./run demo` builds it"):
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


def sleeping(tmp_path):
    """Make a state that stands alone on a layer, as its driver that is gone left it."""
    states = States(tmp_path / "data/sandboxes", ranged=is_root(), first_id=1 << 30)
    meta = states.make(SPEC.id, "img", datetime.now(UTC))
    states.disk(SPEC.id).write_bytes(b"files")
    return states, states.share(msgspec.structs.replace(meta, on_disk=True))


async def test_a_settling_that_is_cancelled_loses_nothing(driver_of, tmp_path, monkeypatch):
    states, meta = sleeping(tmp_path)
    driver, save = driver_of("exit 1"), States.save
    begun, goes_on = threading.Event(), threading.Event()

    def slow(self, meta, **options):
        begun.set()
        goes_on.wait(10)
        save(self, meta, **options)

    monkeypatch.setattr(States, "save", slow)
    settling = asyncio.create_task(driver.settle(SPEC.id, 64))
    await asyncio.to_thread(begun.wait, 10)
    settling.cancel()
    await asyncio.sleep(0.05)
    with contextlib.suppress(SandboxUnavailableError):  # who wakes it asks this first
        driver.origin(SPEC.id)
    assert not settling.done()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await settling
    await asyncio.sleep(0.05)
    assert driver.origin(SPEC.id).ids.base == meta.owner_base
    assert states.disk(SPEC.id).read_bytes() == b"files"
    assert states.load(SPEC.id, "").layers == ()


async def test_what_is_not_whole_is_read_by_nobody(driver_of, tmp_path):
    states, meta = sleeping(tmp_path)
    driver = driver_of("exit 1")
    (states.path(SPEC.id) / UNFLUSHED).write_bytes(b"another boot")
    for way in (driver.uppers(SPEC.id), driver.lower(SPEC.id)):
        with pytest.raises(NotFoundError, match="not whole"):
            async with way:
                pass
    with pytest.raises(NotFoundError, match="not whole"):
        await driver.settle(SPEC.id, 64)
    assert states.seen(SPEC.id) == meta


async def test_a_flush_that_failed_is_tried_again_after_a_sleep(driver_of, tmp_path):
    states, _ = sleeping(tmp_path)
    states.disk(SPEC.id).write_bytes(b"more")
    driver = driver_of("exit 1")
    (states.path(SPEC.id) / UNFLUSHED).write_bytes(BOOT.read_bytes())
    await driver.sleep(SPEC.id)
    async with asyncio.timeout(10):
        while not states.is_flushed(SPEC.id):  # noqa: ASYNC110  a file
            await asyncio.sleep(0.01)


SERVING = """
import socket, struct
channel = socket.socket(fileno=3)
channel.sendall(struct.pack("<IIB3xII", 8, 0, 64, 1, 1))
while channel.recv(4096):
    pass
"""


async def test_a_first_start_that_fails_leaves_nothing_running(driver_of, tmp_path, monkeypatch):
    monkeypatch.setattr("handiwork.sandboxes.disks.can_limit_disks", lambda: False)
    (tmp_path / "agent.py").write_text(SERVING)
    driver = driver_of(f'exec {sys.executable} "{tmp_path}/agent.py" "$@"')
    await driver.create(SPEC)
    await driver.sleep(SPEC.id)
    file = tmp_path / "data/sandboxes" / SPEC.id / "meta.json"
    meta = msgspec.json.decode(file.read_bytes(), type=Meta)
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(meta, forked=True)))

    async def fails(*_):
        raise asyncio.CancelledError

    async def renews(*_):
        pass

    monkeypatch.setattr("handiwork.sandboxes.namespace.renew_machine_id", fails)
    for _ in range(2):  # were it running, the second would be a conflict
        with pytest.raises(asyncio.CancelledError):
            await driver.restore(SPEC)
    assert msgspec.json.decode(file.read_bytes(), type=Meta).forked
    monkeypatch.setattr("handiwork.sandboxes.namespace.renew_machine_id", renews)
    await driver.restore(SPEC)
    assert msgspec.json.decode(file.read_bytes(), type=Meta) == meta
    await driver.destroy(SPEC.id)
