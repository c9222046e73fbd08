"""How many isolates there is room for."""

import resource

import pytest

from handiwork.sandboxes.isolate.room import Room, read_room


@pytest.mark.parametrize(
    ("room", "told"),
    [
        (
            (21_000, 40_000, 30_000),
            "room for 20000 at once, bounded by open files (ulimit -Hn); for 5000",
        ),
        ((1 << 20, 32_768, 60_000), "room for 31768 at once, bounded by kernel.pid_max; for 31768"),
        ((1 << 20, 1 << 22, 2_000), "room for 2000 at once, bounded by memory; for 2000"),
        ((1024, 1 << 22, 2_000), "room for 24 at once, bounded by open files (ulimit -Hn); for 6"),
        ((256, 400, 2_000), "room for 0 at once, bounded by open files (ulimit -Hn); for 0"),
    ],
)
def test_what_is_least_bounds(room: tuple[int, int, int], told: str) -> None:
    files, processes, memory = room
    found = Room(open_files=files, processes=processes, memory_mib=memory).told()
    assert found == f"{told} with their files open"


def test_it_is_read_of_this_host(tmp_path) -> None:
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/pid_max").write_text("32768\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  2048000 kB\n")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert read_room(tmp_path) == Room(open_files=hard, processes=32_768, memory_mib=2_000)
    assert read_room().memory_mib > 0
