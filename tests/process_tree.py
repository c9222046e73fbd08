"""Processes by their parents, and whether they are gone."""

import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process: its id and when it began, so that an id used again is not taken for it."""

    pid: int
    started: int
    command: str

    @property
    def alive(self) -> bool:
        """Whether it still runs; what only waits to be reaped does not."""
        found = _read(self.pid)
        return found is not None and found[0] == self.started and found[2] != "Z"


def descendants(pid: int) -> list[Process]:
    """Return every process below one, in whatever namespace or session it lives."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        found = _read(int(entry.name)) if entry.name.isdigit() else None
        if found:
            children.setdefault(found[1], []).append(int(entry.name))
    below, waiting = [], list(children.get(pid, []))
    while waiting:
        one = waiting.pop()
        waiting += children.get(one, [])
        found = _read(one)
        if found and found[2] != "Z":
            below.append(Process(one, found[0], _command(one)))
    return below


def all_gone(processes: list[Process], seconds: float = 20.0) -> list[Process]:
    """Wait for their ends; return those that outlived the time."""
    limit = time.monotonic() + seconds
    while (left := [one for one in processes if one.alive]) and time.monotonic() < limit:
        time.sleep(0.02)
    return left


def _read(pid: int) -> tuple[int, int, str] | None:
    """Return start time, parent and state of a process (proc(5), stat)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[19]), int(fields[1]), fields[0]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
