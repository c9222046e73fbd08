"""What every benchmark does alike: arguments, alternating runs, medians, and one JSON object.

`python bench/NAME.py [--quick] [--json]` measures Handiwork and its peers in one run. A peer that is
not there, and whatever else cannot be measured here, is skipped by name with the reason.
"""

import argparse
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from handiwork.observe import log

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".peers"

_USUAL = frozenset({"value", "unit", "p50", "p95", "n"})

Arm = Callable[[], Awaitable[Any]]


class Skip(Exception):
    """Raised where something cannot be measured; says why."""


class Bench:
    """One benchmark's run: its options, what it found, and what it left out."""

    def __init__(self, name: str, *, quick: bool) -> None:
        self.name = name
        self.quick = quick
        self.versions = {"python": platform.python_version(), "handiwork": version("handiwork")}
        self.protections: list[str] = []
        self.results: dict[str, dict[str, Any]] = {}
        self.skipped: dict[str, str] = {}

    def times(self, full: int, quick: int) -> int:
        """Return how often to measure."""
        return quick if self.quick else full

    @contextmanager
    def part(self, *names: str) -> Iterator[None]:
        """Measure some results; on Skip each of them is left out with the reason."""
        try:
            yield
        except Skip as reason:
            self.skipped |= dict.fromkeys(names, str(reason))

    async def alternate(
        self, arms: Mapping[str, Arm], *, count: int, warm_up: int = 3
    ) -> dict[str, list[float]]:
        """Time each arm `count` times, in turns, after a warm-up. Returns seconds, in order.

        The order turns round each time, so that none always follows the same other. An arm that
        returns a float has timed itself.
        """
        taken: dict[str, list[float]] = {name: [] for name in arms}
        for turn in range(warm_up + count):
            for name in sorted(arms, reverse=bool(turn % 2)):
                seconds = await timed(arms[name])
                if turn >= warm_up:
                    taken[name].append(seconds)
        return taken

    def record(
        self, name: str, samples: Sequence[float], unit: str, *, scale: float = 1.0, **more: Any
    ) -> float:
        """Keep the median of the samples, times `scale`, as what is quoted; return it."""
        scaled = sorted(sample * scale for sample in samples)
        middle = statistics.median(scaled)
        self.results[name] = {
            "value": rounded(middle),
            "unit": unit,
            "p50": rounded(middle),
            "p95": rounded(percentile(scaled, 95)),
            "n": len(scaled),
            **more,
        }
        return middle

    def ratio(self, name: str, samples: Sequence[float], **more: Any) -> None:
        """Keep a ratio, one sample for each pair of neighbouring runs."""
        self.record(name, samples, "ratio", **more)

    def report(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            "bench": self.name,
            "quick": self.quick,
            "machine": machine(),
            "versions": self.versions,
            "protections": sorted(self.protections),
            "results": self.results,
            "skipped": self.skipped,
        }


async def timed(arm: Arm) -> float:
    """Return the seconds that an arm took, or that it says it took."""
    before = time.perf_counter()
    said = await arm()
    return said if isinstance(said, float) else time.perf_counter() - before


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the smallest sample that so many percent do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def rounded(value: float) -> float:
    """Keep four figures."""
    return float(f"{value:.4g}")


def version(package: str) -> str:
    """Return the installed version, or 'not installed'."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def peer(name: str, program: str) -> Path:
    """Return a peer's program from its own environment under .peers; Skip when it is not there."""
    path = PEERS / name / "bin" / program
    if not path.exists():
        raise Skip(f"{name} is not installed: ./run bench brings it")
    return path


def machine() -> dict[str, Any]:
    """Return the facts of this machine that figures depend on."""
    memory = int(_field("/proc/meminfo", "MemTotal").split()[0])
    return {
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": memory // 1024,
        "kernel": platform.release(),
        "root": os.geteuid() == 0,
        "load_1_minute": os.getloadavg()[0],
        "sha256_mib_per_s": sha256_mib_per_s(),
    }


def sha256_mib_per_s(mib: int = 16, times: int = 5) -> float:
    """Return how fast one processor hashes just now: figures of two runs compare only where it is alike."""
    block = bytes(mib << 20)
    taken = []
    for _ in range(times):
        before = time.perf_counter()
        hashlib.sha256(block).digest()
        taken.append(time.perf_counter() - before)
    return round(mib / statistics.median(taken), 1)


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "0"


def show(report: Mapping[str, Any]) -> str:
    """Return the report for a person: one line a result, then what was left out."""
    facts = report["machine"]
    lines = [
        f"{report['bench']}: {facts['cores']} x {facts['cpu']} (sha256 {facts['sha256_mib_per_s']}"
        f" MiB/s), Linux {facts['kernel']}" + (", quick" if report["quick"] else "")
    ]
    for name, found in report["results"].items():
        more = [f"{key} {held}" for key, held in found.items() if key not in _USUAL]
        figures = f"{found['value']:>10} {found['unit']:6} p95 {found['p95']:<9} n {found['n']:<5}"
        lines.append(f"  {name:34} {figures} {', '.join(more)}".rstrip())
    lines += [f"  {name:34} skipped: {why}" for name, why in report["skipped"].items()]
    return "\n".join(lines)


def main(name: str, measure: Callable[[Bench], Awaitable[None]]) -> None:
    """Run a benchmark from the command line; exit 1 when it could measure nothing."""
    parser = argparse.ArgumentParser(prog=f"bench/{name}.py")
    parser.add_argument("--quick", action="store_true", help="fewer runs; ends within 45 s")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    log.set_up(level="error", format="text", process="bench")
    bench = Bench(name, quick=options.quick)
    uvloop.run(measure(bench))
    report = bench.report()
    print(json.dumps(report, indent=2) if options.json else show(report))
    sys.exit(0 if bench.results else 1)
