"""A kill -9 of whoever holds fifty busy sandboxes: how long until no process and no device of theirs is left."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from handiwork.app import now
from handiwork.tiers import make_driver
from harness import Bench, Skip

SANDBOXES = 50
LOOK_SECONDS, PATIENCE_SECONDS = 0.002, 60.0
Process = tuple[int, str]
"""Its id, and when it began: an id may be used again."""


async def measure(bench: Bench) -> None:
    """after_kill_ms: from the signal to the first look that finds nothing."""
    count = bench.times(SANDBOXES, 10)
    directory = Path(tempfile.mkdtemp(prefix="handiwork-bench-"))
    directory.chmod(0o711)
    try:
        taken = [_one(directory, count) for _ in range(bench.times(5, 2))]
    finally:
        await _remove_state(directory)
        shutil.rmtree(directory)
    bench.record("after_kill_ms", taken, "ms", scale=1000, sandboxes=count)


def _one(directory: Path, count: int) -> float:
    place = Path(tempfile.mkdtemp(dir=directory))
    place.chmod(0o711)
    program = Path(__file__).with_name("busy.py")
    with subprocess.Popen(
        [sys.executable, program, place, str(count)], stdout=subprocess.PIPE
    ) as child:
        try:
            if child.stdout.readline() != b"ready\n":
                raise RuntimeError("the sandboxes were not made")
            theirs = set(_descendants(child.pid))
            if len(theirs) < 4 * count:
                raise RuntimeError(f"{len(theirs)} processes of {count} sandboxes were seen")
            if not any(_devices(place)):
                raise Skip("sandboxes have no disks of their own here")
        finally:
            before = time.perf_counter()
            child.kill()
    while any(_alive(one) for one in theirs) or any(_devices(place)):
        if time.perf_counter() - before > PATIENCE_SECONDS:
            raise RuntimeError(f"something is left after {PATIENCE_SECONDS:g} s")
        time.sleep(LOOK_SECONDS)
    return time.perf_counter() - before


async def _remove_state(directory: Path) -> None:
    """End what is left of them, control groups too, as the next start does."""
    for place in directory.iterdir():
        driver = make_driver(place, clock=now)
        for left in await driver.leftovers():
            await driver.destroy(left)


def _descendants(pid: int) -> Iterator[Process]:
    children = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children[int(fields[1])].append((int(entry.name), fields[19]))
    waiting = [pid]
    while waiting:
        for child in children[waiting.pop()]:
            waiting.append(child[0])
            yield child


def _alive(process: Process) -> bool:
    fields = _stat(process[0])
    return bool(fields) and fields[19] == process[1] and fields[0] != "Z"


def _stat(pid: int) -> list[str]:
    """Return what /proc tells of a process after its name; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _devices(place: Path) -> Iterator[str]:
    """Yield the loop devices on files below a directory."""
    for one in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = one.read_text()
        except OSError:
            continue
        if backing.startswith(os.fspath(place)):
            yield one.parts[3]
