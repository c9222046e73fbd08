"""What our processes hold, sample by sample, and whether it grows."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROLES = {"handiwork.egress": "egress proxy", "handiwork.brains.local": "local brain"}
"""What stands on the command line of each of our programs."""


OWN = ("Anonymous", "Swap")


@dataclass(frozen=True)
class Verdict:
    """How much one thing grew over the second half, by its slope, and how much it may."""

    name: str
    first: float
    last: float
    growth: float
    tolerance: float

    @property
    def flat(self) -> bool:
        return self.growth <= self.tolerance


def sample(control_plane: int) -> dict[str, float]:
    """Return memory, descriptors and threads of each of our programs, and count what is below them.

    Memory is what belongs to no file, swapped out or not: a share of a file's grows when somebody
    else lets go of theirs.
    A sandbox is a process with a process-id namespace other than ours.
    """
    found: dict[str, float] = {"processes": 0, "sandboxes": 0}
    namespaces = set()
    own = _namespace(control_plane)
    for pid in (control_plane, *_below(control_plane)):
        inside = _namespace(pid)
        if not inside:
            continue
        found["processes"] += 1
        if inside != own:
            namespaces.add(inside)
            continue
        role = "control plane" if pid == control_plane else _role(pid)
        if role:
            _add(found, role, pid)
    found["sandboxes"] = len(namespaces)
    return found


WINDOWS = 8
"""A run is looked at in so many pieces, of each at its lowest."""


def growth(values: Sequence[tuple[float, float]]) -> float:
    """Return what was gained in the span of so many (seconds, value): the slope of their lows.

    What is in use for a moment is no growth; what leaks is never given back, at the quietest moment.
    """
    if len(values) < 2:
        return 0.0
    size = max(1, len(values) // WINDOWS)
    lows = [min(values[at : at + size], key=_amount) for at in range(0, len(values), size)]
    if len(lows) < 2:
        return 0.0
    seconds, amounts = zip(*lows, strict=True)
    slope = statistics.linear_regression(seconds, amounts).slope
    return slope * (values[-1][0] - values[0][0])


def _amount(value: tuple[float, float]) -> float:
    return value[1]


def judge(
    samples: Sequence[tuple[float, Mapping[str, float]]], tolerances: Mapping[str, float]
) -> list[Verdict]:
    """Judge the second half of a run; a tolerance stands under a name, or its last word."""
    half = samples[len(samples) // 2 :]
    verdicts = []
    for name in sorted({name for _, found in half for name in found}):
        values = [(at, found[name]) for at, found in half if name in found]
        tolerance = tolerances.get(name) or tolerances[name.rpartition(" ")[2]]
        grown = growth(values)
        verdicts.append(Verdict(name, values[0][1], values[-1][1], grown, tolerance))
    return verdicts


def _add(found: dict[str, float], role: str, pid: int) -> None:
    process = Path(f"/proc/{pid}")
    try:
        memory = sum(_field(process / "smaps_rollup", name) for name in OWN) / 1024
        descriptors = len(list((process / "fd").iterdir()))
        threads = _field(process / "status", "Threads")
    except OSError:
        return
    for name, value in (("mib", memory), ("descriptors", descriptors), ("threads", threads)):
        found[f"{role} {name}"] = found.get(f"{role} {name}", 0) + value


def _role(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return ""
    return next((role for module, role in ROLES.items() if module in words), "")


def _below(pid: int) -> list[int]:
    found: list[int] = []
    waiting = [pid]
    while waiting:
        try:
            tasks = list(Path(f"/proc/{waiting.pop()}/task").iterdir())
            children = [word for task in tasks for word in (task / "children").read_text().split()]
        except OSError:
            continue
        waiting += map(int, children)
        found += map(int, children)
    return found


def _namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


def _field(path: Path, name: str) -> float:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return float(value.split()[0])
    raise OSError(f"{path} has no {name}")
