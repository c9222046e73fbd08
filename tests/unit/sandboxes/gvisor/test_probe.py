"""What is told of gVisor on a host: by what it runs, or why it does not and what to do."""

from pathlib import Path

from handiwork.model.errors import UnsupportedError
from handiwork.sandboxes.gvisor.driver import Gvisor
from handiwork.sandboxes.gvisor.probe import examine
from handiwork.testing.sandbox import FakeDriver


async def test_where_it_runs_its_platform_is_told():
    driver, inside = FakeDriver(), Gvisor(Path("/opt/runsc"))
    inside.platform = "systrap"
    found = await examine(driver, inside)
    assert (found.name, found.ok, found.fix) == ("gvisor", True, "")
    assert "by /opt/runsc on its platform systrap" in found.detail
    assert not driver.states


async def test_where_it_does_not_run_the_reason_is_told():
    class Refusing(FakeDriver):
        async def create(self, spec):
            raise UnsupportedError("systrap: no such call / ptrace: not permitted")

    found = await examine(Refusing(), Gvisor(Path("/opt/runsc")))
    assert not found.ok
    assert found.detail == "systrap: no such call / ptrace: not permitted"
    assert "gvisor.platform" in found.fix
