"""Why a machine has no room."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from handiwork.config import SandboxSettings
from handiwork.sessions.room import MEMORY, Room, available_memory_mib

SETTINGS = SandboxSettings(max_sandboxes=4, min_free_memory_mib=100)


@pytest.mark.parametrize(
    ("free", "memory", "why"),
    [
        (1, 100.0, ""),
        (1, None, ""),
        (0, 100.0, "4 sandboxes live or are about to, as many as sandbox.max_sandboxes allows"),
        (1, 99.4, "99 MiB of memory are free, sandbox.min_free_memory_mib is 100"),
    ],
)
def test_what_is_full_is_named(free: int, memory: float | None, why: str) -> None:
    assert Room(SimpleNamespace(free=free), SETTINGS, lambda: memory)() == why


def test_the_memory_of_this_machine_is_told() -> None:
    told = available_memory_mib()
    assert told is not None
    total = int(MEMORY.read_text().split()[1]) / 1024
    assert 0 < told < total


def test_a_kernel_that_does_not_tell(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 1 kB\n")
    assert available_memory_mib(tmp_path / "meminfo") is None
