"""How many isolates a host has room for at once, and what bounds them."""

import resource
from pathlib import Path

import msgspec

SPARE = 1_000
"""Descriptors and processes of everything else."""
SOCKET, FILES = 1, 3
"""Descriptors of an isolate: its cell's, and those of its workspace once that was opened."""
CELL_MIB = 1
"""What a cell of JavaScript takes of memory that ran a little, page tables and the kernel's part included."""


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What a host has of each thing that every isolate takes some of."""

    open_files: int
    processes: int
    memory_mib: int

    def told(self) -> str:
        """Return it for a person: the number, and what would raise it."""
        bounds = {
            "open files (ulimit -Hn)": (self.open_files - SPARE) // SOCKET,
            "kernel.pid_max": self.processes - SPARE,
            "memory": self.memory_mib // CELL_MIB,
        }
        what = min(bounds, key=lambda name: bounds[name])
        most = max(bounds[what], 0)
        with_files = max(min(most, (self.open_files - SPARE) // (SOCKET + FILES)), 0)
        return f"room for {most} at once, bounded by {what}; for {with_files} with their files open"


def read_room(root: Path = Path("/")) -> Room:
    """Read what this host has now; blocks briefly."""
    meminfo = (root / "proc/meminfo").read_text().splitlines()
    free = next(line for line in meminfo if line.startswith("MemAvailable:"))
    return Room(
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        processes=int((root / "proc/sys/kernel/pid_max").read_text()),
        memory_mib=int(free.split()[1]) // 1024,
    )
