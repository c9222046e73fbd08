"""What a host lacks for isolates is said; nothing weaker is made of it."""

from pathlib import Path

import pytest

from handiwork.model.errors import UnsupportedError
from handiwork.sandboxes.isolate import probe
from handiwork.sandboxes.isolate.driver import IsolateDriver


@pytest.fixture
def good(tmp_path: Path) -> dict[str, object]:
    actions, program = tmp_path / "actions", tmp_path / "isolate_cell"
    actions.write_text("kill_process kill_thread trap errno user_notif trace log allow\n")
    program.touch()
    return {"system": "Linux", "machine": "x86_64", "actions": actions, "program": program}


def test_a_host_that_has_it_all_is_good(good) -> None:
    probe.check(**good)
    probe.check(**{**good, "machine": "aarch64"})


@pytest.mark.parametrize(
    ("lack", "why"),
    [
        ({"system": "Darwin"}, "seccomp, which Darwin has not: it needs Linux"),
        ({"machine": "riscv64"}, "no filter for riscv64; it runs on x86_64, aarch64"),
        ({"actions": Path("/no/such")}, r"this kernel cannot \(kill_process, errno, allow\)"),
        ({"program": Path("/no/isolate_cell")}, r"is not there \(isolate_cell\)"),
    ],
)
def test_what_is_missing_is_named(good, lack, why) -> None:
    with pytest.raises(UnsupportedError, match=why):
        probe.check(**{**good, **lack})


def test_a_kernel_that_kills_less_is_not_enough(good) -> None:
    good["actions"].write_text("kill_thread errno allow\n")
    with pytest.raises(UnsupportedError, match=r"\(kill_process\)"):
        probe.check(**good)


async def test_cells_that_do_not_come_up_are_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(probe, "check", lambda: None)
    path = tmp_path / "program"
    path.write_text("#!/bin/sh\nexit 7\n")
    path.chmod(0o755)
    found = await probe.examine(IsolateDriver(tmp_path / "data", user_id=0, program=path))
    assert (found.name, found.ok, found.fix) == ("isolate", False, probe.FIX)
    assert "zygote" in found.detail
