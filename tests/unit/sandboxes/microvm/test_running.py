"""A machine's processes and ports: what it said last, and that nothing of it is left."""

import asyncio
from pathlib import Path

import pytest

from handiwork.model.errors import UnsupportedError
from handiwork.sandboxes.microvm import running


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def script(tmp_path, text):
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return [str(path)]


async def test_the_console_tells_why(tmp_path):
    argv = script(tmp_path, "printf 'a\\nhandiwork-guest: \\033/dev/vda: no\\nb\\n' >&7")
    found = await running.start(argv, "leaf", "", woken=False)
    await found.channel.closed()
    assert await found.why() == "handiwork-guest: ?/dev/vda: no"
    await found.stop()


async def test_the_programs_own_line_is_told_when_nothing_else_is(tmp_path):
    found = await running.start(script(tmp_path, "echo no kernel >&2"), "leaf", "", woken=False)
    await found.channel.closed()
    assert await found.why() == "no kernel"
    await found.stop()


async def test_a_console_without_end_is_not_read_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "CONSOLE_BYTES", 100_000)
    found = await running.start(script(tmp_path, "cat /dev/zero >&7"), "leaf", "", woken=False)
    for _ in range(20_000):
        if found.console._left < 0:
            break
        await asyncio.sleep(0.001)
    left = found.console._left
    await asyncio.sleep(0.05)
    assert found.console._left == left
    await found.stop()


async def test_stopping_leaves_nothing(tmp_path):
    before = descriptors()
    found = await running.start(script(tmp_path, "exec sleep 60"), "leaf", "", woken=True)
    await found.stop()
    await asyncio.sleep(0)
    assert found.process.exited.done()
    assert descriptors() == before


async def test_what_cannot_start_leaves_nothing(tmp_path):
    before = descriptors()
    with pytest.raises(UnsupportedError):
        await running.start([str(tmp_path / "none")], "leaf", "", woken=False)
    assert descriptors() == before
