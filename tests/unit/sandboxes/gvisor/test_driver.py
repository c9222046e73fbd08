"""gVisor's program: found, asked what it knows, and its platform chosen by doing."""

import pytest

from handiwork.model.errors import SandboxUnavailableError, UnsupportedError
from handiwork.model.sandbox import Limits, SandboxSpec
from handiwork.sandboxes.gvisor.driver import Gvisor, find_runsc

SPEC = SandboxSpec(id="sbx_aaaaaaaa")


@pytest.fixture
def runsc(tmp_path):
    """One that knows a single flag."""
    program = tmp_path / "runsc"
    program.write_text("#!/bin/sh\ncase $1 in --network=*) exit 0;; *) exit 2;; esac\n")
    program.chmod(0o755)
    return program


def test_the_first_place_that_has_it(tmp_path, runsc):
    places = (str(tmp_path / "absent"), str(runsc))
    assert find_runsc("", places) == runsc
    assert find_runsc("", places[:1]) is None
    assert find_runsc(str(tmp_path / "absent"), places) is None


async def test_the_first_platform_that_works_is_kept(runsc, tmp_path):
    gvisor, tried = Gvisor(runsc), []

    async def attempt():
        tried.append(gvisor.launch_options(SPEC, tmp_path, ranged=True, ahead=False)[5])
        if len(tried) == 1:
            raise SandboxUnavailableError("no such platform")

    await gvisor.ready(attempt)
    await gvisor.ready(attempt)
    assert tried == ["--platform=systrap", "--platform=ptrace"]
    assert gvisor.platform == "ptrace"
    told = gvisor.launch_options(SPEC, tmp_path, ranged=False, ahead=False)
    assert told[4:] == [
        *("--runsc-flag", "--platform=ptrace"),
        *("--runsc-flag", "--network=none"),
        *("--runsc-flag", "--rootless=true"),
    ]


async def test_when_none_works_every_reason_is_told(runsc):
    async def attempt():
        raise SandboxUnavailableError("broken")

    with pytest.raises(UnsupportedError, match=r"runs no sandbox here: kvm: broken"):
        await Gvisor(runsc, "kvm").ready(attempt)


def test_the_group_around_has_room_for_gvisor(runsc):
    around = Gvisor(runsc, processors=2).around(Limits(memory_mib=100, pids=10))
    assert (around.memory_mib, around.pids) == (292, 396)
