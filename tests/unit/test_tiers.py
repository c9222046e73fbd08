"""Which tiers a host has: those that were proven; one that a setting names stops the start."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from handiwork import tiers
from handiwork.config import GvisorSettings, MicrovmSettings, SandboxSettings, Settings
from handiwork.model.errors import ConfigError, UnsupportedError
from handiwork.sandboxes.images.store import Images
from handiwork.sandboxes.microvm.plan import Setup
from handiwork.sandboxes.microvm.probe import Examined
from handiwork.sandboxes.probe import Finding
from handiwork.store.layout import Layout

NO_GVISOR = GvisorSettings(runsc="/no/runsc")


def clock() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "data")


@pytest.fixture
def no_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    async def examine(_settings: Settings, *, clock: tiers.Clock) -> Examined:
        return Examined(finding=Finding(name="microvm", ok=False, detail="no QEMU", fix="get it"))

    monkeypatch.setattr(tiers, "examine_microvm", examine)


@pytest.mark.parametrize("where", ["sandbox", "environments"])
@pytest.mark.usefixtures("no_machines")
async def test_a_tier_that_is_not_here_stops_the_start(where: str, layout: Layout) -> None:
    sandbox = SandboxSettings(tier="gvisor" if where == "sandbox" else "namespace")
    served = ["microvm"] if where == "environments" else []
    reason = "; no QEMU: get it" if where == "environments" else ", or install runsc"
    settings = Settings(sandbox=sandbox, gvisor=NO_GVISOR)
    with pytest.raises(
        ConfigError, match=f"is not available here; use one of isolate, namespace{reason}"
    ):
        await tiers.tier_drivers(settings, layout, Images(layout.images), served, clock=clock)
    settings = Settings(gvisor=NO_GVISOR)
    assert list(
        await tiers.tier_drivers(settings, layout, Images(layout.images), [], clock=clock)
    ) == ["namespace", "isolate"]


async def test_machines_are_a_tier_where_they_were_proven(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def examine(_settings: Settings, *, clock: tiers.Clock) -> Examined:
        setup = Setup(acceleration="tcg", kind="pc")
        return Examined(finding=Finding(name="microvm", ok=True, detail="boots"), setup=setup)

    monkeypatch.setattr(tiers, "examine_microvm", examine)
    settings = Settings(sandbox=SandboxSettings(tier="microvm"), gvisor=NO_GVISOR)
    images = Images(layout.images)
    drivers = await tiers.tier_drivers(settings, layout, images, [], clock=clock)
    assert list(drivers) == ["namespace", "isolate", "microvm"]
    state = layout.sandboxes / "microvm/states/sbx_aaaaaaaa"
    state.mkdir()
    (state / "disk").touch()
    (state / "meta.json").write_text(
        '{"id":"sbx_aaaaaaaa","owner":5,"image":"d","created":"2026-01-02T00:00:00Z"}'
    )
    assert {one for held in images._holders for one in held().get("d", ())} == {"sbx_aaaaaaaa"}


async def test_gvisor_is_there_where_runsc_is(layout: Layout, tmp_path: Path) -> None:
    runsc = tmp_path / "runsc"
    runsc.touch()
    settings = Settings(
        sandbox=SandboxSettings(tier="gvisor"), gvisor=GvisorSettings(runsc=str(runsc))
    )
    drivers = await tiers.tier_drivers(settings, layout, Images(layout.images), [], clock=clock)
    assert list(drivers) == ["namespace", "gvisor", "isolate"]


def test_a_missing_runsc_is_told_to_who_checks(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="there is no runsc"):
        tiers.TIER_DRIVERS["gvisor"](tmp_path, Settings(gvisor=NO_GVISOR), clock)


def test_ids_of_the_tiers_do_not_meet() -> None:
    sandboxes = SandboxSettings()
    gvisor = sandboxes.first_id + tiers.GVISOR_IDS
    assert sandboxes.first_id < sandboxes.microvm.first_id < gvisor < 1 << 31
    assert gvisor - sandboxes.microvm.first_id >= 1 << 20


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Machines that run emulated alone; the accelerations that were tried."""
    tried: list[str] = []

    async def examine(settings: Settings, *, clock: tiers.Clock) -> Examined:
        tried.append(settings.sandbox.microvm.acceleration)
        if tried[-1] == "kvm":
            lacking = Finding(name="microvm", ok=False, detail="no guest runs", fix="get a host")
            return Examined(finding=lacking)
        setup = Setup(acceleration="tcg", kind="pc")
        return Examined(finding=Finding(name="microvm", ok=True, detail="boots"), setup=setup)

    monkeypatch.setattr(tiers, "examine_microvm", examine)
    return tried


async def test_who_checks_machines_gets_emulated_ones_and_is_told(
    examined: list[str], tmp_path: Path
) -> None:
    found = await tiers.checked_microvm(tmp_path, Settings(), clock=clock)
    assert (found.driver.tier, examined) == ("microvm", ["kvm", "tcg"])
    assert found.note == "emulated, for these checks only: no guest runs"


async def test_who_asks_for_emulated_machines_is_told_nothing(
    examined: list[str], tmp_path: Path
) -> None:
    microvm = MicrovmSettings(acceleration="tcg")
    settings = Settings(sandbox=SandboxSettings(microvm=microvm))
    assert (await tiers.checked_microvm(tmp_path, settings, clock=clock)).note == ""
    assert examined == ["tcg"]


@pytest.mark.usefixtures("no_machines")
async def test_machines_that_do_not_run_at_all_are_told_to_who_checks(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no QEMU: get it"):
        await tiers.checked_microvm(tmp_path, Settings(), clock=clock)
