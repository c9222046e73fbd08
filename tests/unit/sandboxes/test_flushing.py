"""Writing new disks out: in the right order, later, and by whoever has them."""

import asyncio
import os
from datetime import UTC, datetime

import pytest

from handiwork.sandboxes import flushing
from handiwork.sandboxes.copying import Copying
from handiwork.sandboxes.flushing import Flushing
from handiwork.sandboxes.states import BOOT, UNFLUSHED, States

ONE = "sbx_oneaaaaaaaa"


class Copy:
    def __init__(self, order, *, mounted):
        self._order = order
        self._mounted = mounted

    def settle(self):
        self._order.append("settle")
        return self._mounted


@pytest.fixture
def states(tmp_path):
    states = States(tmp_path / "sandboxes", ranged=os.geteuid() == 0, first_id=1 << 30)
    states.save(states.make(ONE, "img", datetime(2026, 1, 2, tzinfo=UTC)))
    states.disk(ONE).write_bytes(b"files")
    (states.path(ONE) / UNFLUSHED).write_bytes(BOOT.read_bytes())
    return states


@pytest.fixture
def order(states, monkeypatch):
    order = []
    write_out, flush = states.write_out, states.flush

    def noted(sandbox_id, **how):
        order.append(("flush", how))
        flush(sandbox_id, **how)

    monkeypatch.setattr(states, "write_out", lambda one: (order.append("out"), write_out(one)))
    monkeypatch.setattr(states, "flush", noted)
    monkeypatch.setattr(flushing, "AFTER_SECONDS", 0.05)
    return order


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  threads tell nothing
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("mounted", [True, False])
async def test_a_copy_is_written_out_before_its_mount_asks_for_flushes(states, order, mounted):
    """In this order: nothing inside waits for all of it, and nothing it flushes later is lost."""
    Flushing(states, Copying()).later(ONE, Copy(order, mounted=mounted))
    await asyncio.sleep(0.01)
    assert order == []  # whoever waits for the fork comes first
    await until(lambda: states.is_flushed(ONE))
    assert order == ["out", "settle", ("flush", {"mounted": mounted})]


async def test_what_is_mounted_like_any_disk_is_flushed_at_once(states, order):
    flushing = Flushing(states, Copying())
    flushing.later(ONE, mounted=True)
    await until(lambda: states.is_flushed(ONE))
    assert order == ["out", ("flush", {"mounted": True})]
    flushing.later(ONE)
    await asyncio.sleep(0.05)
    assert len(order) == 2


async def test_what_somebody_else_has_by_now_is_theirs(states, order, monkeypatch, capsys):
    def busy(sandbox_id, **how):
        order.append("busy")
        raise BlockingIOError

    monkeypatch.setattr(states, "flush", busy)
    Flushing(states, Copying()).later(ONE)
    await until(lambda: "busy" in order)
    await asyncio.sleep(0.05)
    assert not states.is_flushed(ONE)
    assert "not flushed" not in capsys.readouterr().err
