"""Whether this machine has room for one more session, beside the places that the fleet counts."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from handiwork.config import SandboxSettings

MEMORY = Path("/proc/meminfo")
_FIELD = "MemAvailable:"


class Counted(Protocol):
    """Sandboxes that live, and those that claimed sessions will want."""

    @property
    def free(self) -> int:
        """How many more may."""
        ...


def available_memory_mib(path: Path = MEMORY) -> float | None:
    """Return the memory that may be had without swapping; None where the kernel does not tell."""
    for line in path.read_text().splitlines():
        if line.startswith(_FIELD):
            return int(line.split()[1]) / 1024
    return None


class Room:
    """Call it: why nothing more can be taken up, empty when it can."""

    def __init__(
        self,
        sandboxes: Counted,
        settings: SandboxSettings,
        memory_mib: Callable[[], float | None] = available_memory_mib,
    ) -> None:
        self._sandboxes = sandboxes
        self._settings = settings
        self._memory_mib = memory_mib

    def __call__(self) -> str:
        """Look again."""
        settings = self._settings
        if self._sandboxes.free <= 0:
            return (
                f"{settings.max_sandboxes} sandboxes live or are about to, as many as"
                " sandbox.max_sandboxes allows"
            )
        memory = self._memory_mib()
        if memory is not None and memory < settings.min_free_memory_mib:
            return (
                f"{memory:.0f} MiB of memory are free, sandbox.min_free_memory_mib is"
                f" {settings.min_free_memory_mib}"
            )
        return ""
