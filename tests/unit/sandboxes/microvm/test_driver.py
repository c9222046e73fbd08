"""The driver around machines that do not come up: one line says why, nothing is left."""

from datetime import UTC, datetime

import pytest

from handiwork.model.errors import (
    ConfigError,
    NotFoundError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.model.sandbox import SandboxSpec
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.microvm.driver import MicrovmDriver
from handiwork.sandboxes.microvm.kernel import Boot
from handiwork.sandboxes.microvm.plan import Setup
from stand_in_machines import OneImage, without_tools

SPEC = SandboxSpec(id="sbx_aaaaaaaa")


@pytest.fixture
def driver_of(tmp_path, monkeypatch):
    without_tools(tmp_path, monkeypatch)

    def make(script, *, erofs=tmp_path / "image.erofs"):
        agent = tmp_path / "agent"
        agent.write_text(f"#!/bin/sh\n{script}\n")
        agent.chmod(0o755)
        image = Image(digest="d", tree=tmp_path, erofs=erofs, roots=tmp_path / "roots.pem")
        driver = MicrovmDriver(
            tmp_path / "data",
            agent,
            OneImage(image),
            Setup(acceleration="tcg", kind="pc"),
            clock=lambda: datetime.now(UTC),
        )
        driver._boot = Boot(kernel=tmp_path / "k", initrd=tmp_path / "i", digest="b")
        return driver

    return make


def left(tmp_path):
    return [entry.name for entry in (tmp_path / "data/microvm/states").iterdir()]


async def test_the_jails_line_is_told_and_nothing_is_left(driver_of, tmp_path):
    driver = driver_of("echo 'handiwork-guest: namespaces: No space' >&2; exit 125")
    with pytest.raises(SandboxUnavailableError, match=r"namespaces: No space.*doctor"):
        await driver.create(SPEC)
    assert left(tmp_path) == []


async def test_a_silent_machine_is_given_up(driver_of, tmp_path, monkeypatch):
    monkeypatch.setattr("handiwork.sandboxes.microvm.driver.BOOT_SECONDS", 0.05)
    with pytest.raises(SandboxUnavailableError, match=r"did not answer within 0\.05"):
        await driver_of("exec sleep 60").create(SPEC)
    assert left(tmp_path) == []


async def test_an_image_that_is_no_file_is_refused(driver_of, tmp_path):
    with pytest.raises(UnsupportedError, match="build an image"):
        await driver_of("exit 1", erofs=None).create(SPEC)
    assert left(tmp_path) == []


async def test_what_is_refused_before_anything_is_made(driver_of, tmp_path):
    driver = driver_of("exit 1")
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY"):
        await driver.create(SandboxSpec(id=SPEC.id, env={"ANTHROPIC_API_KEY": "x"}))
    with pytest.raises(ConfigError, match="not valid"):
        await driver.create(SandboxSpec(id="../x"))
    with pytest.raises(NotFoundError):
        await driver.sleep(SPEC.id)
    with pytest.raises(NotFoundError):
        await driver.restore(SPEC)
    await driver.destroy(SPEC.id)
    assert left(tmp_path) == []


async def test_a_failed_restore_keeps_the_disk(driver_of, tmp_path):
    driver = driver_of("exit 125")
    with pytest.raises(SandboxUnavailableError):
        await driver.create(SPEC)
    meta = driver._states.make(SPEC.id, "d", datetime.now(UTC))
    driver._states.save(meta)
    disk = tmp_path / "data/microvm/states" / SPEC.id / "disk"
    disk.write_bytes(b"kept")
    with pytest.raises(SandboxUnavailableError):
        await driver.restore(SPEC)
    assert disk.read_bytes() == b"kept"
    assert await driver.leftovers() == [SPEC.id]
