"""Where attacks happen: one sandbox that attacks, a neighbour, and the host's health around both."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from attacks import vitals
from attacks.forks import Forks
from attacks.table import LACKING, Attack, control
from handiwork.model.errors import SandboxUnavailableError
from handiwork.model.sandbox import ExecRequest, Limits, SandboxSpec
from handiwork.sandboxes.gvisor.driver import Gvisor, find_runsc
from handiwork.sandboxes.microvm.driver import MicrovmDriver
from handiwork.sandboxes.namespace import NamespaceDriver
from handiwork.sandboxes.protocol import Driver, Sandbox
from microvm_world import make_driver, needs_kernel


@dataclass(frozen=True)
class Tier:
    """How a tier's driver is made, whether its guests run on the host's own kernel, and what holds in it.

    `hides_agent`: root inside is kept from the agent; else it can end its own sandbox by it, no more.
    `counts_own_threads`: its kernel takes no limit of processes; its memory pays for them.
    `has_tree`: what its sandboxes write are files of the host's, below a directory or on a disk.
    """

    make: Callable[[Path], Driver]
    shares_kernel: bool
    hides_agent: bool = True
    counts_own_threads: bool = False
    has_tree: bool = True
    marks: tuple[pytest.MarkDecorator, ...] = ()


def _namespace(data_dir: Path) -> NamespaceDriver:
    return NamespaceDriver(data_dir, clock=lambda: datetime.now(UTC))


def _gvisor(data_dir: Path) -> NamespaceDriver:
    runsc = find_runsc("")
    assert runsc is not None, "no runsc: ./run test installs it"
    return NamespaceDriver(data_dir, clock=lambda: datetime.now(UTC), inside=Gvisor(runsc))


def _microvm(data_dir: Path) -> MicrovmDriver:
    return make_driver(data_dir)


patience = pytest.mark.timeout(300)
"""A kernel that is emulated does everything many times slower."""
TIERS = {
    "namespace": Tier(_namespace, shares_kernel=True),
    "gvisor": Tier(
        _gvisor, shares_kernel=False, hides_agent=False, counts_own_threads=True, marks=(patience,)
    ),
    "microvm": Tier(_microvm, shares_kernel=False, has_tree=False, marks=(needs_kernel, patience)),
}
"""A tier with a driver gets its line here, and all of `tests/security/sandbox` with it."""

HANG_SECONDS = 60.0
LIMITS = Limits(memory_mib=256, pids=128, tmp_mib=64)
ALIVE = ExecRequest(argv=("echo", "alive"), cwd="/")


def python(script: str, **fields) -> ExecRequest:
    """Return the request that runs a Python script."""
    return ExecRequest(argv=("python3", "-I", "-S", "-c", script), cwd="/", **fields)


def shell(script: str, **fields) -> ExecRequest:
    """Return the request that runs a script of `sh`."""
    return ExecRequest(argv=("sh", "-c", script), cwd="/", **fields)


async def told(box: Sandbox, request: ExecRequest) -> list[str]:
    """Return the words of a command that must succeed."""
    result = await box.exec(request)
    assert result.exit_code == 0, (result.exit_code, result.stderr[-800:])
    return result.stdout.decode().split()


async def held(box: Sandbox, script: str, **fields):
    """Start a script that prints a line and goes on; returns it and the line's words."""
    request = python(script + "\nimport time; print(flush=True); time.sleep(600)", **fields)
    process = await box.start(request)
    seen = b""
    async for _, data in process.output():
        seen += data
        if seen.endswith(b"\n"):
            return process, seen.decode().split()
    raise AssertionError(f"it ended: {seen!r}")


@dataclass
class World:
    """Two sandboxes of one tier. `attacker` is made anew after an attack that may have ended it."""

    tier: Tier
    driver: Driver
    data_dir: Path
    attacker: Sandbox
    neighbour: Sandbox
    before: vitals.Vitals = field(default_factory=vitals.taken)
    clock: float = field(default_factory=vitals.clock)
    made: int = 0
    forks: Forks | None = None

    async def healthy(self) -> None:
        """Check that the host and the neighbour are as before."""
        assert vitals.harms(self.before, vitals.taken()) == []
        assert abs(vitals.clock() - self.clock) < vitals.CLOCK_SLACK_SECONDS, "the clock was set"
        assert vitals.shortages() == []
        assert await self.neighbour.files.read("/workspace/mine") == b"mine\n"
        assert await told(self.neighbour, ALIVE) == ["alive"]

    async def outlives(self, request: ExecRequest) -> None:
        """Let the attacker do it to itself; one that ends or hangs by it is made anew."""
        await self._outlives(lambda: self.attacker.exec(request))

    async def _outlives(self, attempt: Callable[[], Awaitable[object]]) -> None:
        try:
            async with asyncio.timeout(HANG_SECONDS):
                await attempt()
                assert await told(self.attacker, ALIVE) == ["alive"]
        except (SandboxUnavailableError, TimeoutError):
            await self.driver.destroy(self.attacker.id)
            self.attacker, self.forks = await self.sandbox(), None
            assert await told(self.attacker, ALIVE) == ["alive"]

    async def _forked(self, script: str) -> None:
        said = await self.forks.run(script)
        if said is None:
            self.forks = None
        else:
            assert len(said.split()) == 1, said

    async def withstands(self, attack: Attack) -> None:
        """Make one attack of the table, its control, and check what both did."""
        if self.tier.shares_kernel:
            result = await self.attacker.exec(attack.request)
            assert result.exit_code == 0, (attack.name, result.exit_code, result.stderr[-800:])
            said = result.stdout.decode().strip()
            assert said in attack.inside, f"{attack.name}: {said}"
            assert await told(self.attacker, ALIVE) == ["alive"]
        else:
            self.forks = self.forks or await Forks.start(self.attacker)
            await self._outlives(lambda: self._forked(attack.script))
        await self.healthy()
        without = control(attack)
        if without in LACKING - attack.outside:
            pytest.skip(f"this kernel has nothing to attack: {without}")
        assert without in attack.outside, f"the control of {attack.name}: {without}"

    async def sandbox(self, limits: Limits = LIMITS) -> Sandbox:
        """Make one more sandbox, for an attack that it may not outlive."""
        self.made += 1
        return await self.driver.create(_spec(f"more{self.made}", limits))


def _spec(name: str, limits: Limits = LIMITS) -> SandboxSpec:
    return SandboxSpec(id=f"sbx_{name}x{os.getpid():08}", limits=limits)


@asynccontextmanager
async def opened(tier: Tier, data_dir: Path) -> AsyncIterator[World]:
    """Make a world, and destroy every sandbox of it at the end."""
    driver = tier.make(data_dir)
    try:
        attacker = await driver.create(_spec("bad"))
        neighbour = await driver.create(_spec("fair"))
        await neighbour.files.write("/workspace/mine", b"mine\n")
        yield World(tier, driver, data_dir, attacker, neighbour)
    finally:
        for sandbox_id in await driver.leftovers():
            await driver.destroy(sandbox_id)
