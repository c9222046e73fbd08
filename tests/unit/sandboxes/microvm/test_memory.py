"""Saving and loading: the commands in their order, and what fails is told."""

import os

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.microvm import memory


class StandIn:
    """Takes the place of the monitor; `answers` gives the status words that are told in turn."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    async def run(self, command, descriptor=None, **arguments):
        self.asked.append(command)
        if command == "getfd":
            assert os.fstat(descriptor).st_size >= 0
        if command.startswith("query"):
            return {"status": self.answers.pop(0)}
        return {}


async def test_saving_waits_for_the_end(tmp_path):
    monitor = StandIn("setup", "active", "completed")
    await memory.save(monitor, tmp_path / "devices")
    assert monitor.asked[:3] == ["stop", "migrate-set-capabilities", "getfd"]
    assert monitor.answers == []
    assert (tmp_path / "devices").stat().st_mode & 0o777 == 0o600


async def test_a_failed_saving_is_told(tmp_path):
    with pytest.raises(SandboxUnavailableError, match="failed"):
        await memory.save(StandIn("failed"), tmp_path / "devices")


async def test_loading_waits_until_all_is_read(tmp_path):
    (tmp_path / "devices").write_bytes(b"x")
    monitor = StandIn("inmigrate", "inmigrate", "paused", "paused")
    await memory.load(monitor, tmp_path / "devices")
    assert monitor.asked[:3] == ["migrate-set-capabilities", "getfd", "migrate-incoming"]
    assert "cont" not in monitor.asked


async def test_a_failed_loading_is_told(tmp_path):
    (tmp_path / "devices").write_bytes(b"x")
    with pytest.raises(SandboxUnavailableError, match="internal-error"):
        await memory.load(StandIn("internal-error", "internal-error"), tmp_path / "devices")
