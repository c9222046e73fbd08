"""Every tier, and the fake, passes the suite that ships with the product."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

import microvm_world
from handiwork.cli.tier_report import TierReport
from handiwork.model.sandbox import SandboxExit, SandboxSpec
from handiwork.sandboxes import namespace, selfcheck
from handiwork.sandboxes.gvisor.driver import Gvisor, find_runsc
from handiwork.sandboxes.isolate.driver import IsolateDriver
from handiwork.sandboxes.protocol import Sandbox, Wish
from handiwork.testing.sandbox import FakeDriver

TESTS = Path(__file__).parents[1]
FAKE_AREAS = ("command", "files", "life")
QUICK = ("true and false tell their exit codes",)
"""What is made of a tier that is slow to start when not all tests are."""


def make_namespace(data_dir: Path) -> namespace.NamespaceDriver:
    return namespace.NamespaceDriver(data_dir, clock=lambda: datetime.now(UTC))


def make_gvisor(data_dir: Path) -> namespace.NamespaceDriver:
    runsc = find_runsc("")
    assert runsc is not None, "no runsc: ./run test installs it"
    return namespace.NamespaceDriver(
        data_dir, clock=lambda: datetime.now(UTC), inside=Gvisor(runsc)
    )


def make_fake(data_dir: Path) -> FakeDriver:
    return FakeDriver()


def make_isolate(data_dir: Path) -> IsolateDriver:
    return IsolateDriver(data_dir, user_id=64103 if os.geteuid() == 0 else 0)


class Claiming:
    """A driver of which every new sandbox was made ahead, and is claimed."""

    def __init__(self, data_dir: Path) -> None:
        self._driver = make_namespace(data_dir)
        self._one_at_a_time = asyncio.Lock()
        self._way_out = data_dir / "exit.sock"
        self._way_out.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as refusing:
            refusing.bind(str(self._way_out))

    def __getattr__(self, name: str) -> object:
        return getattr(self._driver, name)

    async def create(self, spec: SandboxSpec) -> Sandbox:
        wish = Wish(image=spec.image, limits=spec.limits, sandboxes=1)
        way_out = SandboxExit(socket_path=str(self._way_out), ca_certificate="CA\n")
        async with self._one_at_a_time:
            await self._driver.prepare([wish])
            box = await self._driver.create(msgspec.structs.replace(spec, exit=way_out))
            assert not list(self._way_out.parent.glob("sandboxes/.pool-*"))
        return box


DRIVERS = {
    "claimed": (Claiming, selfcheck.AREAS),
    "namespace": (make_namespace, selfcheck.AREAS),
    "microvm": (microvm_world.make_driver, selfcheck.AREAS),
    "gvisor": (make_gvisor, selfcheck.AREAS),
    "isolate": (make_isolate, selfcheck.CODE_AREAS),
    "fake": (make_fake, FAKE_AREAS),
}
CASES = [
    (tier, name)
    for tier, (_, areas) in DRIVERS.items()
    for name in selfcheck.names(areas)
    if tier not in {"microvm", "gvisor"}  # slow to start: each makes its checks in one run
]
OLD_GVISOR_LACKS = {name for name in selfcheck.names() if name.startswith("a terminal ")}
"""Before some version it has no terminals that control processes: refused by name, not half made."""
LIVING = "processes live on through a sleep"
FORKS = ("forks have the files and are apart", "a fork outlives what it is of")
USERS = "another user is another user"
"""What tiers lack: root's sandboxes have ids and disks of their own, an ordinary user's do not."""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """One directory for all checks, so that the image is built once."""
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize(("tier", "name"), CASES)
async def test_check(tier, name, data_dir):
    make, areas = DRIVERS[tier]
    found = [made async for made in selfcheck.selfcheck(make(data_dir), areas=areas, only=[name])]
    assert [made.name for made in found] == [name]
    assert found[0].ok, found[0].detail
    assert lacking(found) <= lacked("namespace", root=os.geteuid() == 0)
    states = data_dir / "sandboxes"
    assert not states.exists() or not list(states.iterdir())


@pytest.mark.timeout(180)
@microvm_world.needs_kernel
def test_a_machine_comes_up(machine_dir):
    """The quick part: one machine, emulated."""
    assert made_by_machines(machine_dir, only=QUICK) == list(QUICK)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(900)
@microvm_world.needs_kernel
def test_every_tier_by_the_command(tmp_path):
    """As an operator checks a host; without KVM its machines are emulated, which is told."""
    (tmp_path / "temporary").mkdir()
    gvisor = NEW_RUNSC if NEW_RUNSC.exists() else find_runsc("")
    (tmp_path / "handiwork.toml").write_text(
        f'[gvisor]\nrunsc = "{gvisor}"\n'
        f'[sandbox.microvm]\nkernel_dir = "{microvm_world.kernel_dir()}"\n'
    )
    argv = [sys.executable, "-m", "handiwork", "--config", tmp_path / "handiwork.toml"]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": f"{tmp_path}/temporary"}
    done = subprocess.run(
        [*argv, "selfcheck", "--tier", "all", "--json"],
        env=env,
        capture_output=True,
        text=True,
        timeout=850,
        check=False,
    )
    reports = msgspec.json.decode(done.stdout, type=list[TierReport])
    assert [report.tier for report in reports] == ["namespace", "gvisor", "isolate", "microvm"], (
        done
    )
    for report in reports:
        areas = selfcheck.CODE_AREAS if report.tier == "isolate" else selfcheck.AREAS
        assert [made.name for made in report.checks] == selfcheck.names(areas), report.missing
        assert [made for made in report.checks if not held(made, report.tier)] == []
        assert lacking(report.checks) == lacked(report.tier, root=True)
    assert done.returncode == (0 if all(report.passed for report in reports) else 1)
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.timeout(180)
async def test_gvisor(data_dir):
    """In one run as well: each driver has to prove its platform first."""
    make, areas = DRIVERS["gvisor"]
    driver = make(data_dir / "gvisor")
    found = [made async for made in selfcheck.selfcheck(driver, areas=areas)]
    assert [made.name for made in found] == selfcheck.names()
    assert [made for made in found if not held(made, driver.tier)] == []
    assert lacking(found) == lacked(driver.tier, root=os.geteuid() == 0)
    assert await driver.leftovers() == []


NEW_RUNSC = Path(__file__).parents[2] / ".runsc/usr/bin/runsc"
"""Where `./run test` puts a newer one, when this Debian's own is old."""


@pytest.fixture
def runsc() -> Path:
    found = NEW_RUNSC if NEW_RUNSC.exists() else find_runsc("")
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if "version 0.0~2022" in told:
        pytest.skip("there is no gVisor here that has terminals: ./run test tried to get one")
    return found


@pytest.mark.timeout(180)
async def test_terminals_of_a_newer_gvisor(tmp_path, runsc):
    """Its kernel interrupts also who wants the keys raw, and tells nobody of a new size: the agent helps."""
    driver = namespace.NamespaceDriver(
        tmp_path, clock=lambda: datetime.now(UTC), inside=Gvisor(runsc)
    )
    only = sorted(OLD_GVISOR_LACKS)
    found = [made async for made in selfcheck.selfcheck(driver, only=only)]
    assert [made.detail for made in found if not made.ok] == []
    assert sorted(made.name for made in found) == only


@pytest.mark.timeout(300)
async def test_a_namespace_lacks_nothing_else(tmp_path):
    """In one run: what each may lack, and only that, is what it lacks."""
    only = [LIVING, USERS, *FORKS]
    driver = make_namespace(tmp_path)
    found = [made async for made in selfcheck.selfcheck(driver, only=only)]
    assert [made for made in found if not made.ok] == []
    assert lacking(found) == lacked("namespace", root=os.geteuid() == 0)


def lacking(found) -> set[str]:
    return {made.name for made in found if made.lacks}


def lacked(tier: str, *, root: bool) -> set[str]:
    if tier in ("microvm", "isolate"):
        return set()
    return {LIVING} if root else {LIVING, USERS, *FORKS}


def held(made: selfcheck.Check, tier: str) -> bool:
    """Whether a check was passed, or told by name that the tier has no such thing where it may lack it."""
    lacking = tier == "gvisor" and made.name in OLD_GVISOR_LACKS
    return made.ok or (lacking and made.detail.startswith("UnsupportedError: no terminal controls"))


@pytest.fixture(scope="module")
def machine_dir(tmp_path_factory):
    """Where its kernel and image are made."""
    return tmp_path_factory.mktemp("machines")


def made_by_machines(directory: Path, only) -> list[str]:
    make, areas = DRIVERS["microvm"]

    async def run():
        driver = make(directory)
        found = [made async for made in selfcheck.selfcheck(driver, areas=areas, only=only)]
        return found, await driver.leftovers()

    found, left = asyncio.run(run())
    assert [made for made in found if not made.ok] == []
    assert lacking(found) == lacked("microvm", root=True)
    assert left == []
    return [made.name for made in found]


@pytest.fixture
def open_dir():
    """A directory that another user can reach, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="handiwork-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def made_in_a_child(before: list[str], data_dir: Path, agent: str, *tier: str) -> dict:
    """Make the suite in a process of its own, without our rights, and check that all of it passed."""
    script = [sys.executable, str(TESTS / "rootless_selfcheck.py"), str(data_dir), agent, *tier]
    done = subprocess.run([*before, *script], capture_output=True, timeout=170, cwd="/", text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert [made["name"] for made in told["checks"]] == selfcheck.names()
    checks = msgspec.convert(told["checks"], list[selfcheck.Check])
    assert [made for made in checks if not held(made, *(tier or ("namespace",)))] == []
    assert lacking(checks) == lacked(*(tier or ("namespace",)), root=False)
    assert told["left"] == []
    return told | {"said": done.stdout + done.stderr}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("tier", ["namespace", "gvisor"])
def test_rootless(open_dir, tier):
    data_dir = open_dir / "data"
    data_dir.mkdir(mode=0o700)
    agent = shutil.copy(namespace.DEFAULT_AGENT, open_dir)
    if os.geteuid() == 0:
        os.chown(data_dir, 65534, 65534)
    assert made_in_a_child([], data_dir, agent, tier)["uid"] != 0


@pytest.mark.timeout(180)
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare(1)")
def test_as_root_of_a_user_namespace(tmp_path):
    """Its one id is all it has to give: it works as an ordinary user does."""
    told = made_in_a_child(["unshare", "-Ur"], tmp_path, str(namespace.DEFAULT_AGENT))
    assert told["uid"] == 0


@pytest.mark.timeout(180)
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare(1)")
def test_where_time_namespaces_are_forbidden(tmp_path):
    """Sandboxes are as ever, but for the host's clocks, and that is told."""
    forbid = 'echo 0 >/proc/sys/user/max_time_namespaces && exec "$@"'
    before = ["unshare", "-Ur", "sh", "-c", forbid, "sh"]
    told = made_in_a_child(before, tmp_path, str(namespace.DEFAULT_AGENT))
    assert told["own_clocks"] is False
    assert told["said"].count("sandbox.clocks_of_the_host") == 1
