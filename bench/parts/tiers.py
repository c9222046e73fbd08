"""New sandboxes of a tier: made, or claimed from the pool; and commands in one that stands."""

import contextlib
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from handiwork.app import now
from handiwork.config import GvisorSettings
from handiwork.model.errors import HandiworkError
from handiwork.model.sandbox import ExecRequest, Limits, SandboxExit, SandboxSpec
from handiwork.sandboxes.namespace import NamespaceDriver
from handiwork.sandboxes.protocol import Wish
from handiwork.tiers import GUEST_AGENT, make_driver, make_gvisor_driver
from harness import Bench, Skip

COMMAND, OUTPUT = ("/bin/echo", "ready"), b"ready\n"
KIND = Wish(image="host", limits=Limits(), sandboxes=1)
OWN_EXECS = 20
CERTIFICATE = "-----BEGIN CERTIFICATE-----\n" + "TUlJQg==\n" * 60 + "-----END CERTIFICATE-----\n"
"""As long as a real one: it is part of what a claim writes."""


class Tier:
    """A driver on a directory of its own; every sandbox has an exit, as the product gives it one."""

    def __init__(self, driver: NamespaceDriver, way_out: SandboxExit) -> None:
        self.driver = driver
        self._way_out = way_out
        self._count = 0

    def spec(self) -> SandboxSpec:
        """Return the next sandbox, of an id that is not used twice."""
        self._count += 1
        return SandboxSpec(id=f"sbx_{self._count:032x}", exit=self._way_out)

    async def made(self) -> float:
        """Return the seconds from nothing to the first output of one made anew; disks are made ahead."""
        await self.driver.prepare([Wish(image=KIND.image, limits=KIND.limits)])
        return await self._first_output()

    async def claimed(self) -> float:
        """Return the seconds from the claim to the first output of one that stood ready."""
        await self.driver.prepare([KIND])
        return await self._first_output()

    async def _first_output(self) -> float:
        spec = self.spec()
        before = time.perf_counter()
        try:
            box = await self.driver.create(spec)
            ended = await box.exec(ExecRequest(argv=COMMAND))
            seconds = time.perf_counter() - before
        finally:
            await self.driver.destroy(spec.id)
        if ended.stdout != OUTPUT:
            raise RuntimeError(f"the sandbox answered {ended}")
        return seconds

    @asynccontextmanager
    async def one(self) -> AsyncIterator:
        """Yield a sandbox and destroy it at the end."""
        spec = self.spec()
        box = await self.driver.create(spec)
        try:
            yield box
        finally:
            await self.driver.destroy(spec.id)

    async def close(self) -> None:
        """End all that is left."""
        await self.driver.prepare(())
        for left in await self.driver.leftovers():
            await self.driver.destroy(left)


@contextlib.contextmanager
def refusing_exit(directory: Path) -> Iterator[SandboxExit]:
    """Yield a way out that is there and refuses everything."""
    path = directory / "exit.sock"
    with socket.socket(socket.AF_UNIX) as refusing:
        refusing.bind(str(path))
        path.chmod(0o666)
        yield SandboxExit(socket_path=str(path), ca_certificate=CERTIFICATE)


@asynccontextmanager
async def tier(name: str) -> AsyncIterator[Tier]:
    """Yield a tier that leaves nothing behind; Skip where it is not here."""
    if not GUEST_AGENT.exists():
        raise Skip("the guest agent is not built: pip install -e . builds it")
    directory = Path(tempfile.mkdtemp(prefix="handiwork-bench-"))
    directory.chmod(0o711)
    try:
        with refusing_exit(directory) as way_out:
            driver = _driver(name, directory / "data")
            found = Tier(driver, way_out)
            try:
                await _proven(found)
                yield found
            finally:
                await found.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _driver(name: str, directory: Path) -> NamespaceDriver:
    if name == "namespace":
        return make_driver(directory, clock=now)
    driver = make_gvisor_driver(directory, GvisorSettings(), clock=now)
    if driver is None:
        raise Skip("no runsc: apt-get install runsc")
    return driver


async def _proven(tier: Tier) -> None:
    """Make one first: it also builds the image and finds the platform."""
    try:
        await tier.made()
    except HandiworkError as error:
        raise Skip(str(error)) from None


async def measure_exec(bench: Bench, tier: Tier, name: str, count: int) -> None:
    """Measure a command in a sandbox that stands."""
    request = ExecRequest(argv=("/bin/true",))
    async with tier.one() as box:
        taken = await bench.alternate({name: lambda: box.exec(request)}, count=count, warm_up=20)
    bench.record(name, taken[name], "ms", scale=1000)


async def measure_own_exec(bench: Bench, tier: Tier, name: str, count: int) -> None:
    """Measure how long a shell inside takes for a command: no agent and no channel are part of it."""
    script = f"i=0; while [ $i -lt {OWN_EXECS} ]; do {{}} || exit 1; i=$((i+1)); done"
    async with tier.one() as box:

        async def run(command: str) -> None:
            ended = await box.exec(ExecRequest(argv=("/bin/sh", "-c", script.format(command))))
            if ended.exit_code:
                raise RuntimeError(f"{command} ended with {ended.exit_code} inside")

        arms = {"empty": lambda: run(":"), "full": lambda: run("/bin/true")}
        taken = await bench.alternate(arms, count=count, warm_up=1)
    pairs = zip(taken["full"], taken["empty"], strict=True)
    bench.record(name, [(one - other) / OWN_EXECS for one, other in pairs], "ms", scale=1000)


def protections(tier: Tier) -> list[str]:
    """Return what holds around every sandbox here."""
    return [name for name, held in tier.driver.protections().items() if held]
