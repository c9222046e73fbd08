"""A resting session's processes stand still, and go on with the next message, or end with its time."""

import asyncio
import time
from pathlib import Path

import pytest

import residue
from uppers import written
from workplace import Job, Workplace, bash, turn

CONFIG = """
[sessions]
idle_seconds = 0.5
lease_seconds = 4
[sandbox]
freeze_seconds = {seconds}
min_free_memory_mib = 0
freeze_min_free_memory_mib = 0
[sandbox.pool]
ready = 0
"""
COUNTS = "kept=7; (while :; do echo x >>ticks; sleep 0.02; done) >/dev/null 2>&1 & echo $! >pid"
GOES_ON = "kill -0 $(cat pid) && before=$(wc -l <ticks) && sleep 0.5 && echo kept $kept, $(($(wc -l <ticks) > before))"
ENDED = "! kill -0 $(cat pid) 2>/dev/null && test -s ticks && echo kept [$kept]"
SECONDS = 60.0
pytestmark = pytest.mark.timeout(180)


async def until_still(place: Workplace, job: Job) -> None:
    """Wait until its sandbox rests with all its processes."""
    limit = time.monotonic() + SECONDS
    while True:
        (box,) = await place.hands.sandboxes.list()
        if "stand still" in box.record.reason:
            return
        assert time.monotonic() < limit, box.record
        await asyncio.sleep(0.1)


def ticks(place: Workplace) -> int:
    """Count what was written, seen from the host: whoever asks the sandbox would let it go on."""
    return max(map(len, written(place.plane.data, "workspace/ticks")), default=0)


async def test_processes_and_the_shell_go_on_with_the_next_message(tmp_path: Path) -> None:
    async with Workplace(tmp_path, CONFIG.format(seconds=600)) as place:
        job = await place.begin([turn(bash(COUNTS)), turn(bash(GOES_ON)), turn(bash(GOES_ON))])
        await job.turn()
        for _ in range(2):
            await until_still(place, job)
            before = ticks(place)
            await asyncio.sleep(0.5)
            assert ticks(place) == before > 0
            assert await job.turn() == ["kept 7, 1"]
        (box,) = await place.hands.sandboxes.list()
        assert "idle" in [one.reason for one in await box.snapshots.list()]


async def test_when_the_time_is_over_it_sleeps_and_keeps_its_files(tmp_path: Path) -> None:
    async with Workplace(tmp_path, CONFIG.format(seconds=1)) as place:
        job = await place.begin([turn(bash(COUNTS)), turn(bash(ENDED))])
        await job.turn()
        await job.until_asleep()
        assert await job.turn() == ["kept []"]


async def test_killed_while_they_stand_still_nothing_is_left_after_the_next_start(
    tmp_path: Path,
) -> None:
    async with Workplace(tmp_path, CONFIG.format(seconds=600)) as place:
        job = await place.begin([turn(bash(COUNTS)), turn(bash(ENDED))])
        await job.turn()
        await until_still(place, job)
        group = residue.group_name(place.plane.data)
        await place.kill()
        assert [one for one in residue._groups(group) if "sbx_" in str(one)] == []
        assert await job.turn() == ["kept []"]
