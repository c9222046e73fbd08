"""Sandboxes in emulated machines: from nothing, asleep, and awake again with a live process."""

import shutil
import sys
import tempfile
import time
from pathlib import Path

from handiwork.model.errors import UnsupportedError
from handiwork.model.sandbox import ExecRequest
from handiwork.sandboxes.microvm import memory
from harness import ROOT, Bench, Skip

sys.path.insert(0, str(ROOT / "tests"))  # the small image is the tests' own

from microvm_world import make_driver, spec

LIVE = "(i=0; while :; do i=$((i+1)); echo $i >/var/tmp/n; sleep 0.05; done) >/dev/null 2>&1 &"
COUNT = "cat /var/tmp/n"
NAMES = ("microvm_tcg_cold_ms", "microvm_tcg_resume_ms", "microvm_state_save_ms")


async def measure(bench: Bench) -> None:
    """Measure machines of 256 MiB and one processor."""
    directory = Path(tempfile.mkdtemp(prefix="handiwork-bench-"))
    try:
        await _measure(bench, directory)
    except UnsupportedError as error:
        raise Skip(str(error)) from None
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _measure(bench: Bench, directory: Path) -> None:
    driver, saves = make_driver(directory), Saves()
    cold = [await _cold(driver, number) for number in range(1 + bench.times(8, 2))][1:]
    asked = spec("sbx_benchlive")
    woken = []
    try:
        box = await driver.create(asked)
        await box.exec(ExecRequest(argv=("sh", "-c", LIVE), cwd="/"))
        with saves:
            last = 0
            for _ in range(bench.times(15, 4)):
                await driver.sleep(asked.id)
                seconds, counted = await _wake(driver, asked)
                if counted <= last:
                    raise RuntimeError(f"the live process counted {counted} after {last}")
                woken.append(seconds)
                last = counted
    finally:
        await driver.destroy(asked.id)
    bench.record("microvm_tcg_cold_ms", cold, "ms", scale=1000)
    bench.record("microvm_tcg_resume_ms", woken, "ms", scale=1000)
    bench.record("microvm_state_save_ms", saves.seconds, "ms", scale=1000)


async def _cold(driver, number: int) -> float:
    asked = spec(f"sbx_benchcold{number}")
    before = time.perf_counter()
    try:
        box = await driver.create(asked)
        await box.exec(ExecRequest(argv=("true",), cwd="/"))
        return time.perf_counter() - before
    finally:
        await driver.destroy(asked.id)


async def _wake(driver, asked) -> tuple[float, int]:
    before = time.perf_counter()
    box = await driver.restore(asked)
    ended = await box.exec(ExecRequest(argv=("sh", "-c", COUNT), cwd="/"))
    return time.perf_counter() - before, int(ended.stdout)


class Saves:
    """Times each saving of devices, from the stop to the last byte."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._save = memory.save

    def __enter__(self) -> None:
        memory.save = self._timed

    def __exit__(self, *_) -> None:
        memory.save = self._save

    async def _timed(self, monitor, path) -> None:
        before = time.perf_counter()
        await self._save(monitor, path)
        self.seconds.append(time.perf_counter() - before)
