"""Hooks of a control plane that runs: its own process and id, policies that name them, the command line."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import handiwork
from control_plane_process import BRAINLESS, SLEEPLESS, ControlPlane, running
from handiwork.client.handiwork import Handiwork
from workplace import WITHOUT_ROOT

HOOK = """
import json, os
from pathlib import Path
from handiwork.hooks import Answer

def may(act):
    try:
        act()
    except OSError as error:
        return error.strerror
    return ""

async def on_request(ctx, request):
    inner = await ctx.http.get("https://reached.test/")
    told = {
        "uid": os.getuid(),
        "capabilities": Path("/proc/self/status").read_text().split("CapEff:")[1].split()[0],
        "state": may((ctx.directory / "note").touch),
        "own": request.path != "/separate" or may(lambda: Path(__file__).write_text("")),
        "beside": request.path != "/separate" or may(lambda: Path(__file__).with_name("new.py").write_text("")),
        "database": may(lambda: Path(request.query).read_bytes()),
        "inner": [inner.status, inner.headers.get("x-handiwork-rule")],
        "sandbox": ctx.sandbox_id,
    }
    return Answer(headers=(("content-type", "application/json"),), body=json.dumps(told).encode())
"""
POLICY = """
name = "hooked"
[[rules]]
id = "all"
action = "hook"
match = {{ hosts = ["hooked.test"] }}
hooks = ["{name}"]
"""
CONFIG = SLEEPLESS + BRAINLESS + '[hooks]\nenabled = true\npolicy = "own"\n'
OWN = 'name = "own"\n[[rules]]\nid = "no"\naction = "deny"\nreason = "no"\nmatch = { hosts = ["*"] }\n'


@pytest.fixture(scope="module", params=[(), WITHOUT_ROOT], ids=["as it is", "rootless"])
def plane(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[ControlPlane]:
    directory = tmp_path_factory.mktemp("plane")
    (directory / "data" / "hooks").mkdir(parents=True)
    (directory / "data" / "hooks" / "told.py").write_text(HOOK)
    with running(directory, config=CONFIG, through=request.param) as made:
        yield made


def own_id(plane: ControlPlane) -> bool:
    """Say whether its processes have ids of their own: it is root of the whole machine."""
    status = Path(f"/proc/{plane.process.pid}/uid_map").read_text().split()
    return os.geteuid() == 0 and status == ["0", "0", "4294967295"]


def verb(plane: ControlPlane, *arguments: str, code: int = 0) -> str:
    done = handiwork(*arguments, cwd=plane.data, HANDIWORK_DATA_DIR=str(plane.data))
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def apply(plane: ControlPlane, name: str, *, code: int = 0) -> str:
    file = plane.data.parent / f"{name}.toml"
    file.write_text(POLICY.format(name=name))
    return verb(plane, "policy", "apply", str(file), code=code)


async def test_a_hook_answers_a_sandbox_from_a_process_of_its_own(plane: ControlPlane) -> None:
    own = plane.data.parent / "own.toml"
    own.write_text(OWN)
    verb(plane, "policy", "apply", str(own))
    apply(plane, "told")
    async with Handiwork(socket=plane.socket) as hw:
        box = await hw.sandboxes.create(policy="hooked")
        database, path = plane.data / "handiwork.db", "separate" if own_id(plane) else ""
        done = await box.exec(["curl", "-sS", f"https://hooked.test/{path}?{database}"])
        await box.close()
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["sandbox"] == box.id
    assert told["state"] == ""
    assert told["inner"] == [403, "tool:own/no"]  # the policy that was written after the start
    assert (plane.data / "hooks" / "state" / "note").exists()
    if own_id(plane):
        assert (told["uid"], int(told["capabilities"], 16)) == (64104, 0)
        assert told["own"] == told["beside"] == told["database"] == "Permission denied"


async def test_a_policy_with_a_hook_that_is_not_there_is_refused(plane: ControlPlane) -> None:
    assert "there is no hook 'absent' that works" in apply(plane, "absent", code=2)


async def test_a_broken_file_is_told_and_the_last_good_one_holds(plane: ControlPlane) -> None:
    file = plane.data / "hooks" / "told.py"
    file.write_text("async def (")
    try:
        row = listed(plane, error=True)
        assert row["stages"] == ["request"]
        assert "line 1" in row["error"]
        assert '"event": "hook broken"' in plane.log.read_text()
        apply(plane, "told")
    finally:
        file.write_text(HOOK)
    assert listed(plane, error=False)["stages"] == ["request"]


def listed(plane: ControlPlane, *, error: bool) -> dict[str, object]:
    """Return the one hook, once there is an error, or none."""
    limit = time.monotonic() + 10
    while True:
        [row] = json.loads(verb(plane, "hook", "list", "--json"))
        if bool(row["error"]) is error or time.monotonic() > limit:
            return row


async def test_a_policy_of_hooks_own_cannot_be_withdrawn(plane: ControlPlane) -> None:
    own = plane.data.parent / "own.toml"
    own.write_text(OWN)
    verb(plane, "policy", "apply", str(own))
    assert "hooks.policy" in verb(plane, "policy", "delete", "own", code=1)


async def test_the_process_is_unreadable(plane: ControlPlane) -> None:
    found = [
        entry
        for entry in Path("/proc").glob("[0-9]*")
        if b"handiwork.egress.hooks" in command(entry)
        and Path(f"/proc/{plane.process.pid}") == Path(f"/proc/{parent(entry)}")
    ]
    [process] = found
    assert (process / "mem").stat().st_uid == 0 or os.geteuid() != 0
    assert "NoNewPrivs:\t1" in (process / "status").read_text()


def command(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


def parent(entry: Path) -> str:
    return (entry / "status").read_text().split("PPid:")[1].split()[0]
