"""The tiers of this host: how each one's driver is made, and what is missing where one is not.

With `app.py` the only file that names concrete adapters.
"""

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from handiwork import process
from handiwork.config import GvisorSettings, SandboxSettings, Settings
from handiwork.model.errors import ConfigError, UnsupportedError
from handiwork.observe.metrics import Metrics
from handiwork.sandboxes.gvisor import probe as gvisor_probe
from handiwork.sandboxes.gvisor.driver import Gvisor, find_runsc
from handiwork.sandboxes.images.sample import SampleImages
from handiwork.sandboxes.images.store import Images
from handiwork.sandboxes.isolate import probe as isolate_probe
from handiwork.sandboxes.isolate.driver import IsolateDriver
from handiwork.sandboxes.microvm.driver import MicrovmDriver
from handiwork.sandboxes.microvm.plan import Setup
from handiwork.sandboxes.microvm.probe import Examined, examine
from handiwork.sandboxes.namespace import NamespaceDriver
from handiwork.sandboxes.probe import Finding
from handiwork.sandboxes.protocol import Driver
from handiwork.sandboxes.trees import remove_tree
from handiwork.store.layout import Layout

Clock = Callable[[], datetime]

GUEST_AGENT = Path(__file__).with_name("guest_agent")

GVISOR_IDS = (1 << 29) + (1 << 24)
"""How far the host ids of the gvisor tier lie above those of the namespace tier: those of the microvm
tier lie between, one for each machine."""

TIER_NEEDS = {"gvisor": ", or install runsc (Debian's package of that name) or set gvisor.runsc"}
"""What to do where a tier is missing."""


def make_driver(
    directory: Path,
    *,
    clock: Clock,
    first_id: int = SandboxSettings().first_id,
    images: Images | None = None,
    metrics: Metrics | None = None,
) -> NamespaceDriver:
    """Return the namespace driver on a directory; `doctor` and the benchmarks use it alone."""
    return NamespaceDriver(
        directory, GUEST_AGENT, clock=clock, first_id=first_id, images=images, metrics=metrics
    )


async def examine_microvm(settings: Settings, *, clock: Clock) -> Examined:
    """Prove whether machines run here as the settings say; `doctor` and the start ask it."""
    microvm = settings.sandbox.microvm
    asked = Setup(
        acceleration=microvm.acceleration,
        kind="pc",
        kernel_dir=Path(microvm.kernel_dir),
        first_id=microvm.first_id if process.is_root() else 0,
    )
    directory = Path(tempfile.mkdtemp(prefix="handiwork-microvm-"))
    try:
        return await examine(GUEST_AGENT, asked, directory, clock=clock)
    finally:
        await asyncio.to_thread(remove_tree, directory)


def make_gvisor_driver(
    directory: Path,
    settings: GvisorSettings,
    *,
    clock: Clock,
    first_id: int = SandboxSettings().first_id,
    images: Images | None = None,
    metrics: Metrics | None = None,
) -> NamespaceDriver | None:
    """Return the gvisor driver on a directory, None where there is no runsc.

    Its ids begin where the first 8,192 sandboxes of the namespace tier end.
    """
    runsc = find_runsc(settings.runsc)
    if runsc is None:
        return None
    return NamespaceDriver(
        directory,
        GUEST_AGENT,
        clock=clock,
        first_id=first_id + GVISOR_IDS,
        images=images,
        inside=Gvisor(runsc, settings.platform),
        metrics=metrics,
    )


async def examine_gvisor(settings: Settings, *, clock: Clock) -> Finding:
    """Prove whether gVisor runs sandboxes here as the settings say; `doctor` asks it."""
    runsc = find_runsc(settings.gvisor.runsc)
    if runsc is None:
        return gvisor_probe.NONE
    inside = Gvisor(runsc, settings.gvisor.platform)
    directory = Path(tempfile.mkdtemp(prefix="handiwork-gvisor-"))
    try:
        driver = NamespaceDriver(
            directory,
            GUEST_AGENT,
            clock=clock,
            first_id=settings.sandbox.first_id + GVISOR_IDS,
            inside=inside,
        )
        return await gvisor_probe.examine(driver, inside)
    finally:
        await asyncio.to_thread(remove_tree, directory)


def make_isolate_driver(directory: Path, settings: Settings) -> IsolateDriver:
    """Return the driver of isolates on a directory; UnsupportedError says why there are none here."""
    isolate_probe.check()
    isolate = settings.sandbox.isolate
    return IsolateDriver(
        directory,
        user_id=isolate.user_id if process.is_root() else 0,
        memory_mib=isolate.memory_mib,
    )


async def examine_isolate(settings: Settings) -> Finding:
    """Prove whether isolates run code here; `doctor` asks it."""
    directory = Path(tempfile.mkdtemp(prefix="handiwork-isolate-"))
    try:
        return await isolate_probe.examine(make_isolate_driver(directory, settings))
    except UnsupportedError as error:
        return Finding(name="isolate", ok=False, detail=str(error), fix=isolate_probe.FIX)
    finally:
        await asyncio.to_thread(remove_tree, directory)


def _checked_isolate(directory: Path, settings: Settings, clock: Clock) -> IsolateDriver:
    del clock
    return make_isolate_driver(directory, settings)


def _checked_namespace(directory: Path, settings: Settings, clock: Clock) -> NamespaceDriver:
    return make_driver(directory, clock=clock, first_id=settings.sandbox.first_id)


def _checked_gvisor(directory: Path, settings: Settings, clock: Clock) -> NamespaceDriver:
    driver = make_gvisor_driver(
        directory, settings.gvisor, clock=clock, first_id=settings.sandbox.first_id
    )
    if driver is None:
        raise UnsupportedError("there is no runsc: install Debian's runsc, or set gvisor.runsc")
    return driver


TIER_DRIVERS: Mapping[str, Callable[[Path, Settings, Clock], Driver]] = {
    "namespace": _checked_namespace,
    "gvisor": _checked_gvisor,
    "isolate": _checked_isolate,
}
"""How `selfcheck` makes a tier's driver on a directory; UnsupportedError says why not."""


class Checkable(msgspec.Struct, frozen=True, kw_only=True):
    """A driver to be checked; `note` says what the checks do not prove."""

    driver: Driver
    note: str = ""


async def checked_microvm(directory: Path, settings: Settings, *, clock: Clock) -> Checkable:
    """Return a driver of machines on a directory, for checks; UnsupportedError says why not.

    Emulated ones where the processor runs none, which is told: nobody else gets these unasked.
    """
    found = await examine_microvm(settings, clock=clock)
    note = ""
    if found.setup is None and settings.sandbox.microvm.acceleration == "kvm":
        emulated = await examine_microvm(_emulating(settings), clock=clock)
        if emulated.setup is not None:
            note = f"emulated, for these checks only: {found.finding.detail}"
        found = emulated
    if found.setup is None:
        raise UnsupportedError(f"{found.finding.detail}: {found.finding.fix}")
    images = SampleImages(directory / "sample")
    driver = MicrovmDriver(directory, GUEST_AGENT, images, found.setup, clock=clock)
    return Checkable(driver=driver, note=note)


def _emulating(settings: Settings) -> Settings:
    replace = msgspec.structs.replace
    microvm = replace(settings.sandbox.microvm, acceleration="tcg")
    return replace(settings, sandbox=replace(settings.sandbox, microvm=microvm))


async def tier_drivers(
    settings: Settings,
    layout: Layout,
    images: Images,
    others: Sequence[str],
    *,
    clock: Clock,
    metrics: Metrics | None = None,
) -> Mapping[str, Driver]:
    """Return the tiers of this host; that of the settings and the others asked for must be among them."""
    drivers: dict[str, Driver] = {}
    namespace = make_driver(
        layout.sandboxes,
        clock=clock,
        first_id=settings.sandbox.first_id,
        images=images,
        metrics=metrics,
    )
    drivers[namespace.tier] = namespace
    gvisor = make_gvisor_driver(
        layout.sandboxes / "gvisor",
        settings.gvisor,
        clock=clock,
        first_id=settings.sandbox.first_id,
        images=images,
        metrics=metrics,
    )
    if gvisor is not None:
        drivers[gvisor.tier] = gvisor
    reasons = dict(TIER_NEEDS)
    try:
        drivers[IsolateDriver.tier] = make_isolate_driver(layout.sandboxes, settings)
    except UnsupportedError as error:
        reasons[IsolateDriver.tier] = f"; {error}"
    pooled = {one.tier for one in settings.sandbox.pool.more}
    wanted = {settings.sandbox.tier, *others, *pooled}
    if MicrovmDriver.tier in wanted:
        found = await examine_microvm(settings, clock=clock)
        reasons[MicrovmDriver.tier] = f"; {found.finding.detail}: {found.finding.fix}"
        if found.setup is not None:
            machines = MicrovmDriver(
                layout.sandboxes, GUEST_AGENT, images, found.setup, clock=clock, metrics=metrics
            )
            images.held_by(machines.standing)
            drivers[machines.tier] = machines
    for tier in sorted(wanted - drivers.keys()):
        raise ConfigError(
            f"the tier {tier!r} is not available here; use one of {', '.join(sorted(drivers))}"
            f"{reasons.get(tier, '')}"
        )
    return drivers
