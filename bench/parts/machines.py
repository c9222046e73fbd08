"""Sandboxes in machines: from nothing, from the pool, asleep, and awake again with a live process."""

import asyncio
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
LAST = ("tail", "-n", "1", COUNTS)
GOES_ON_SECONDS = 10.0
NAMES = (
    *("microvm_tcg_cold_ms", "microvm_tcg_pooled_ms"),
    *("microvm_tcg_resume_ms", "microvm_tcg_resume_read_ms", "microvm_state_save_ms"),
)
KVM_NAMES = (
    *("microvm_kvm_cold_ms", "microvm_kvm_pooled_ms"),
    *("microvm_kvm_resume_ms", "microvm_kvm_resume_read_ms", "microvm_kvm_state_save_ms"),
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
    until_command: list[float] = []
    until_read: list[float] = []
    try:
        box = await driver.create(asked)
        await box.exec(ExecRequest(argv=("sh", "-c", LIVE), cwd="/"))
        with saves:
            for turn in range(2 * bench.times(15, 4)):
                last = await _counted(box)
                await driver.sleep(asked.id)
                before = time.perf_counter()
                box = await driver.restore(asked)
                answered = await (_counted(box) if turn % 2 else _said(box))
                (until_read if turn % 2 else until_command).append(time.perf_counter() - before)
                await _goes_on(box, last, answered)
    finally:
        await driver.destroy(asked.id)
    taken = (cold[1:], pooled[1:], until_command, until_read, saves.seconds)
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


async def _counted(box) -> int:
    """Return how far the live process has counted, by a file."""
    return int((await box.files.read(COUNTS)).split()[-1])


async def _said(box) -> int:
    """Return the same, by a new command."""
    return int((await box.exec(ExecRequest(argv=LAST, cwd="/"))).stdout)


async def _goes_on(box, last: int, answered: int) -> None:
    """See that the live process is the one that was there, and lives."""
    deadline = time.monotonic() + GOES_ON_SECONDS
    while (now := await _counted(box)) <= answered:
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.01)
    if not last <= answered < now:
        raise RuntimeError(f"the live process counted {last}, {answered}, {now}")


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
