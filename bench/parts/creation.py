"""Sandboxes at the driver's port, and bubblewrap as the same command starts in it."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import handiwork
from handiwork.model.sandbox import ExecRequest, SandboxExit, SandboxSpec
from handiwork.sandboxes.namespace import NamespaceDriver
from harness import Bench, Skip
from parts import engines

COMMAND = ("/bin/echo", "ready")
AGENT = Path(handiwork.__file__).with_name("guest_agent")


class Sandboxes:
    """A driver on a directory of its own, and ids that are not used twice."""

    def __init__(self, directory: Path) -> None:
        if not AGENT.exists():
            raise Skip("the guest agent is not built: pip install -e . builds it")
        self.driver = NamespaceDriver(directory, AGENT, clock=lambda: datetime.now(UTC))
        self._count = 0

    def next_id(self) -> str:
        self._count += 1
        return f"sb_{self._count:032x}"

    @asynccontextmanager
    async def one(self, exit: SandboxExit | None = None) -> AsyncIterator:
        """Yield a sandbox and destroy it at the end."""
        spec = SandboxSpec(id=self.next_id(), exit=exit)
        box = await self.driver.create(spec)
        try:
            yield box
        finally:
            await self.driver.destroy(spec.id)

    async def create_once(self) -> float:
        """Return the seconds from nothing to the command's output; what is left goes untimed."""
        before = time.perf_counter()
        async with self.one() as box:
            ended = await box.exec(ExecRequest(argv=COMMAND))
            seconds = time.perf_counter() - before
        if ended.stdout != b"ready\n":
            raise RuntimeError(f"the sandbox answered {ended}")
        return seconds


@asynccontextmanager
async def sandboxes() -> AsyncIterator[Sandboxes]:
    """Yield sandboxes that leave nothing behind."""
    directory = Path(tempfile.mkdtemp(prefix="handiwork-bench-"))
    found: Sandboxes | None = None
    try:
        found = Sandboxes(directory)
        yield found
    finally:
        if found is not None:
            for left in await found.driver.leftovers():
                await found.driver.destroy(left)
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def measure_create(bench: Bench, boxes: Sandboxes) -> None:
    """sandbox_create_ms beside bwrap_create_ms, alternating."""
    arms = {"sandbox": boxes.create_once}
    with bench.part("bwrap_create_ms"):
        arms["bwrap"] = engines.arm(engines.bubblewrap(bench))
    taken = await bench.alternate(arms, count=bench.times(200, 40), warm_up=5)
    for name, seconds in taken.items():
        bench.record(f"{name}_create_ms", seconds, "ms", scale=1000)
    bench.protections += [name for name, held in boxes.driver.protections().items() if held]


async def measure_exec(bench: Bench, boxes: Sandboxes) -> None:
    """exec_warm_ms: a command in a sandbox that stands."""
    request = ExecRequest(argv=("/bin/true",))
    async with boxes.one() as box:
        taken = await bench.alternate(
            {"exec": lambda: box.exec(request)}, count=bench.times(1000, 200), warm_up=20
        )
    bench.record("exec_warm_ms", taken["exec"], "ms", scale=1000)
