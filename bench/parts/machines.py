"""Sandboxes in machines: from nothing, from the pool, asleep, and awake again with a live process."""

import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from handiwork.app import now
from handiwork.model.errors import UnsupportedError
from handiwork.model.sandbox import ExecRequest, SandboxExit
from handiwork.sandboxes.microvm import memory
from handiwork.sandboxes.microvm.plan import Setup
from handiwork.sandboxes.microvm.probe import examine
from handiwork.sandboxes.protocol import Wish
from handiwork.tiers import GUEST_AGENT
from harness import ROOT, Bench, Skip

sys.path.insert(0, str(ROOT / "tests"))  # its machines are those of the tests

from microvm_world import make_driver, setup, spec

LIVE = """
(i=0; while :; do i=$((i+1)); echo $i >>/var/tmp/n; sleep 0.05; done) >/dev/null 2>&1 &
while ! test -s /var/tmp/n; do sleep 0.05; done
"""
"""Counts by appending: a file that is emptied and written again may be read, and may be asleep, empty."""
NOWHERE = SandboxExit(socket_path="/nowhere", ca_certificate="CA\n")
COUNTS = "/var/tmp/n"
COUNT = ("tail", "-n", "1", COUNTS)
NAMES = (
    *("microvm_tcg_cold_ms", "microvm_tcg_pooled_ms"),
    *("microvm_tcg_resume_ms", "microvm_tcg_resume_exec_ms", "microvm_state_save_ms"),
)
KVM_NAMES = (
    *("microvm_kvm_cold_ms", "microvm_kvm_pooled_ms"),
    *("microvm_kvm_resume_ms", "microvm_kvm_resume_exec_ms", "microvm_kvm_state_save_ms"),
)
UNVERIFIED = (
    "unverified: {} (`python bench/sandbox.py` measures it on a host where /dev/kvm runs guests)"
)


async def measure(bench: Bench) -> None:
    """Measure emulated machines of 256 MiB and one processor."""
    await _measured(bench, setup(), NAMES)


async def measure_kvm(bench: Bench) -> None:
    """The same under KVM, where it runs guests; Skip says that the figures are unverified."""
    directory = Path(tempfile.mkdtemp(prefix="handiwork-bench-"))
    try:
        found = await examine(GUEST_AGENT, setup("kvm"), directory, clock=now)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if found.setup is None:
        raise Skip(UNVERIFIED.format(found.finding.detail))
    await _measured(bench, found.setup, KVM_NAMES)


async def _measured(bench: Bench, asked: Setup, names: Sequence[str]) -> None:
    directory = Path(tempfile.mkdtemp(prefix="handiwork-bench-"))
    try:
        await _measure(bench, directory, asked, names)
    except UnsupportedError as error:
        raise Skip(str(error)) from None
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _measure(bench: Bench, directory: Path, asked_of: Setup, names: Sequence[str]) -> None:
    driver, saves = make_driver(directory, asked=asked_of), Saves()
    cold, pooled = [], []
    for number in range(1 + bench.times(8, 2)):
        cold.append(await _made(driver, spec(f"sbx_benchcold{number}")))
        pooled.append(await _claimed(driver, spec(f"sbx_benchpool{number}", exit=NOWHERE)))
    asked = spec("sbx_benchlive")
    woken: list[float] = []
    answered: list[float] = []
    try:
        box = await driver.create(asked)
        await box.exec(ExecRequest(argv=("sh", "-c", LIVE), cwd="/"))
        with saves:
            last = 0
            for _ in range(bench.times(15, 4)):
                await driver.sleep(asked.id)
                seconds, until_exec, counted, later = await _wake(driver, asked)
                if not last <= counted < later:
                    raise RuntimeError(f"the live process counted {last}, {counted}, {later}")
                woken.append(seconds)
                answered.append(until_exec)
                last = later
    finally:
        await driver.destroy(asked.id)
    taken = (cold[1:], pooled[1:], woken, answered, saves.seconds)
    for name, seconds in zip(names, taken, strict=True):
        bench.record(name, seconds, "ms", scale=1000)


async def _claimed(driver, asked) -> float:
    await driver.prepare([Wish(image=asked.image, limits=asked.limits, sandboxes=1)])
    try:
        return await _made(driver, asked)
    finally:
        await driver.prepare(())


async def _made(driver, asked) -> float:
    before = time.perf_counter()
    try:
        box = await driver.create(asked)
        await box.exec(ExecRequest(argv=("true",), cwd="/"))
        return time.perf_counter() - before
    finally:
        await driver.destroy(asked.id)


async def _wake(driver, asked) -> tuple[float, float, int, int]:
    """Return the seconds until a file of its memory is read, and until a new command's output.

    And what the live process had counted at each: by the second it has gone on.
    """
    before = time.perf_counter()
    box = await driver.restore(asked)
    counted = (await box.files.read(COUNTS)).split()[-1]
    woken = time.perf_counter() - before
    ended = await box.exec(ExecRequest(argv=COUNT, cwd="/"))
    return woken, time.perf_counter() - before, int(counted), int(ended.stdout)


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
