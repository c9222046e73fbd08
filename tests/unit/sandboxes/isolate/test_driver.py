"""The driver of isolates, with a stand-in for their program: files are real, cells are not asked."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from handiwork.model.errors import (
    ConflictError,
    GuestError,
    NotFoundError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.model.sandbox import Limits, SandboxSpec
from handiwork.sandboxes.isolate import driver as module
from handiwork.sandboxes.isolate.driver import IsolateDriver
from handiwork.sandboxes.protocol import Wish

PROGRAM = Path(__file__).parents[3] / "stand_in_zygote_program.py"
ONE, TWO = SandboxSpec(id="sbx_one000000001"), SandboxSpec(id="sbx_two000000002")


@pytest.fixture
async def driver(tmp_path):
    path = tmp_path / "program"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -I {PROGRAM} good "$@"\n')
    path.chmod(0o755)
    made = IsolateDriver(tmp_path / "data", user_id=0, program=path)
    yield made
    await made.prepare(())
    for sandbox_id in await made.leftovers():
        await made.destroy(sandbox_id)
    assert made._pools == {}


async def test_a_life(driver):
    box = await driver.create(ONE)
    await box.files.write("/workspace/a", b"1")
    assert await driver.leftovers() == [ONE.id]
    await driver.sleep(ONE.id)
    await driver.sleep(ONE.id)
    assert await box.closed() == ""
    woken = await driver.restore(ONE)
    assert await woken.files.read("/workspace/a") == b"1"
    with pytest.raises(ConflictError):
        await driver.restore(ONE)
    with pytest.raises(ConflictError):
        await driver.create(ONE)
    await driver.destroy(ONE.id)
    await driver.destroy(ONE.id)
    assert await driver.leftovers() == []
    for attempt in (driver.restore(ONE), driver.sleep(ONE.id)):
        with pytest.raises(NotFoundError):
            await attempt


@pytest.mark.parametrize("asleep", [False, True])
async def test_a_fork_has_the_files_and_is_apart(driver, asleep):
    box = await driver.create(ONE)
    await box.files.write("/workspace/a", b"1")
    if asleep:
        await driver.sleep(ONE.id)
    assert driver.can_fork(ONE.id)
    await driver.fork(ONE.id, TWO.id)
    other = await driver.restore(TWO)
    await other.files.write("/workspace/a", b"2")
    if asleep:
        box = await driver.restore(ONE)
    assert await box.files.read("/workspace/a") == b"1"
    with pytest.raises(ConflictError):
        await driver.fork(ONE.id, TWO.id)
    with pytest.raises(NotFoundError):
        await driver.fork("sbx_none00000000", "sbx_three0000003")


async def test_its_disk_limit_is_the_quota(driver):
    box = await driver.create(SandboxSpec(id=ONE.id, limits=Limits(disk_mib=1)))
    assert box.workspace()._quota.bytes == 1 << 20


async def test_pools_are_there_while_somebody_could_want_a_cell(driver, monkeypatch):
    monkeypatch.setattr(module, "LANGUAGES", ("javascript",))
    await driver.create(ONE)
    assert (await driver._take("javascript")).alive
    assert [*driver._pools] == ["javascript"]
    await driver.prepare([Wish(image="host", limits=Limits(), sandboxes=2)])
    await driver.destroy(ONE.id)
    assert [*driver._pools] == ["javascript"]
    await driver.prepare(())
    assert driver._pools == {}


async def test_what_is_wished_stands_ready_before_there_is_a_sandbox(driver, monkeypatch):
    monkeypatch.setattr(module, "LANGUAGES", ("javascript",))
    await driver.prepare([Wish(image="host", limits=Limits(), sandboxes=2)])
    pool = driver._pools["javascript"]
    for _ in range(1000):
        if pool.ready == 2:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("no two cells stand ready")


@pytest.mark.parametrize("verb", ["create", "restore"])
async def test_a_rate_of_a_disk_is_refused(driver, verb):
    limits = Limits(disk_read_mib_per_second=1)
    with pytest.raises(UnsupportedError, match=r"leave out limits\.disk_"):
        await getattr(driver, verb)(SandboxSpec(id=ONE.id, limits=limits))
    assert await driver.leftovers() == []


@pytest.mark.parametrize("verb", ["create", "restore"])
async def test_less_memory_than_a_cell_has_is_refused(driver, verb):
    with pytest.raises(
        UnsupportedError, match=r"limits\.memory_mib = 127: a cell here may use 128"
    ):
        await getattr(driver, verb)(SandboxSpec(id=ONE.id, limits=Limits(memory_mib=127)))
    assert await driver.leftovers() == []


async def test_what_holds_is_told_by_name(driver):
    assert await driver.protections() == {
        "seccomp": True,
        "no_files": True,
        "no_network": True,
        "own_user": True,
    }


async def written(place, ids):
    """Make a tree as a restore does."""
    os.mkdir("upper", dir_fd=place)
    os.mkdir("upper/workspace", dir_fd=place)
    descriptor = os.open("upper/workspace/a", os.O_WRONLY | os.O_CREAT, dir_fd=place)
    os.write(descriptor, b"restored")
    os.close(descriptor)
    return ()


@pytest.mark.parametrize("former", [True, False])
async def test_files_are_made_again_in_one_step(driver, former):
    if former:
        box = await driver.create(ONE)
        await box.files.write("/workspace/b", b"former")
        with pytest.raises(ConflictError, match="is running"):
            await driver.remake(ONE.id, "isolate", 16, written)
        before = driver.origin(ONE.id)
        await driver.sleep(ONE.id)
        assert driver.origin(ONE.id) == before
    await driver.remake(ONE.id, "isolate", 16, written)
    if former:
        assert driver.origin(ONE.id).tree != before.tree
    box = await driver.restore(ONE)
    assert await box.files.read("/workspace/a") == b"restored"
    assert [one.name for one in await box.files.list("/workspace")] == ["a"]


async def fails(place, ids):
    await written(place, ids)
    raise SandboxUnavailableError("the store is gone")


async def links(place, ids):
    await written(place, ids)
    os.symlink("/etc/passwd", "upper/workspace/link", dir_fd=place)
    return ()


async def long(place, ids):
    await written(place, ids)
    descriptor = os.open("upper/workspace/b", os.O_WRONLY | os.O_CREAT, dir_fd=place)
    os.write(descriptor, bytes(2 << 20))
    os.close(descriptor)
    return ()


@pytest.mark.parametrize(
    ("image", "make", "error", "why"),
    [
        ("isolate", fails, SandboxUnavailableError, "the store is gone"),
        ("isolate", links, UnsupportedError, "/workspace/link is no file and no directory"),
        ("isolate", long, GuestError, "the workspace is full"),
        ("sha256:abc", written, UnsupportedError, "a snapshot of a Linux sandbox"),
    ],
)
async def test_what_cannot_be_made_leaves_what_there_was(driver, image, make, error, why):
    box = await driver.create(ONE)
    await box.files.write("/workspace/b", b"former")
    await driver.sleep(ONE.id)
    with pytest.raises(error, match=why):
        await driver.remake(ONE.id, image, 1, make)
    box = await driver.restore(ONE)
    assert await box.files.read("/workspace/b") == b"former"
    assert await driver.leftovers() == [ONE.id]


async def test_files_that_are_not_here_are_not_taken(driver):
    with pytest.raises(NotFoundError):
        driver.origin(ONE.id)
    with pytest.raises(NotFoundError):
        async with driver.still(ONE.id):
            pass
