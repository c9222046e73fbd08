"""Every verb against a control plane that runs; how that one stops, dies and starts again."""

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess
from urllib.parse import urlsplit

import pytest

from brain_process import call, script
from command_line import handiwork
from control_plane_process import ControlPlane, running, start
from handiwork.brains.conversation import conversation
from handiwork.client.handiwork import Handiwork
from handiwork.model.sandbox import OUT_OF_MEMORY, Limits
from handiwork.sandboxes.namespace import NamespaceDriver
from process_tree import all_gone, descendants
from uppers import kept_bytes

Verb = Callable[..., CompletedProcess[str]]

POLICY = """
name = "web"
[[rules]]
id = "docs"
action = "inject"
match = { hosts = ["docs.test"], methods = ["GET"] }
inject = [{ header = "x-key", value = "${secret:docs-key}" }]
"""


@pytest.fixture
def verb(shared_plane: ControlPlane, tmp_path: Path) -> Verb:
    """Run a command line against the control plane that this file's tests share."""
    return verb_of(shared_plane, tmp_path)


def verb_of(plane: ControlPlane, cwd: Path) -> Verb:
    def run(*arguments: str, given: str = "") -> CompletedProcess[str]:
        return handiwork(*arguments, cwd=cwd, given=given, HANDIWORK_DATA_DIR=str(plane.data))

    return run


def ok(done: CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def make(verb: Verb, *options: str) -> str:
    return ok(verb("sandbox", "create", *options)).strip()


def state(verb: Verb, sandbox_id: str) -> str:
    return str(json.loads(ok(verb("sandbox", "show", sandbox_id, "--json")))["state"])


def sleepers(plane: ControlPlane) -> list[int]:
    return [one.pid for one in descendants(plane.process.pid) if "sleep 4719" in one.command]


def test_a_sandbox_from_its_making_to_its_end(verb: Verb, shared_plane: ControlPlane) -> None:
    box = make(verb)
    done = verb("sandbox", "exec", box, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    ok(verb("sandbox", "exec", box, "--", "sh", "-c", "echo kept > file; pwd"))
    slow = verb("sandbox", "exec", "--timeout-seconds", "0.5", box, "sleep", "30")
    assert slow.returncode != 0
    assert "handiwork: stopped after 0.5 s" in slow.stderr
    listed = json.loads(ok(verb("sandbox", "list", "--json")))
    assert [one["state"] for one in listed if one["id"] == box] == ["running"]
    assert box in ok(verb("sandbox", "list"))
    ok(verb("process", "start", box, "--", "sleep", "4719"))
    wait_until(lambda: sleepers(shared_plane))
    ok(verb("sandbox", "sleep", box))
    assert state(verb, box) == "sleeping"
    assert not sleepers(shared_plane)
    ok(verb("sandbox", "wake", box))
    ok(verb("process", "start", box, "--", "sleep", "4719"))
    wait_until(lambda: sleepers(shared_plane))
    assert ok(verb("sandbox", "exec", box, "cat", "file")) == "kept\n"
    ok(verb("sandbox", "delete", box))
    assert state(verb, box) == "gone"
    assert box not in ok(verb("sandbox", "list"))
    assert not sleepers(shared_plane)
    assert not list((shared_plane.data / "sandboxes").rglob(f"*{box}*"))


def test_all_that_a_command_writes_is_passed_on(verb: Verb, shared_plane: ControlPlane) -> None:
    box, count = make(verb), 20 << 20
    script = f"head -c {count} /dev/zero; head -c {count} /dev/zero >&2; exit 3"
    done = verb("sandbox", "exec", box, "--", "sh", "-c", script)
    assert (done.returncode, len(done.stdout), len(done.stderr)) == (3, count, count)
    kept = verb("sandbox", "exec", "--json", box, "sh", "-c", script)
    result = json.loads(kept.stdout)
    assert (kept.returncode, result["exit_code"], result["truncated"]) == (3, 3, True)
    assert len(base64.b64decode(result["stdout"])) == 8 << 20
    assert kept.stderr.startswith("handiwork: truncated:")
    options = ("--stdin", "--user", "nobody", "--env", "A=b c")
    told = verb(
        "sandbox", "exec", *options, box, "sh", "-c", 'cat; id -un; echo "$A"', given="in\n"
    )
    assert ok(told) == "in\nnobody\nb c\n"
    ok(verb("sandbox", "delete", box))


def test_a_kill_for_memory_is_told(verb: Verb, shared_plane: ControlPlane, tmp_path: Path) -> None:
    driver = NamespaceDriver(tmp_path, clock=lambda: datetime.now(UTC))
    if not driver.protections()["memory_limit"]:
        pytest.skip("this host gives no memory control group")

    async def hungry() -> str:
        async with Handiwork(socket=shared_plane.socket) as client:
            limits = Limits(memory_mib=64, tmp_mib=16)
            return (await client.sandboxes.create(limits=limits)).id

    box = asyncio.run(hungry())
    within = "python3 -c 'x = bytearray(200 << 20)' || exit 2"
    done = verb("sandbox", "exec", box, "--", "sh", "-c", within)
    assert done.returncode == 2
    assert done.stderr.endswith(f"handiwork: {OUT_OF_MEMORY}\n")
    process = ok(verb("process", "start", box, "--", "sh", "-c", within)).strip()
    followed = verb("process", "logs", "--follow", box, process)
    assert followed.stderr.endswith(f"{process} exited: exit code 2 ({OUT_OF_MEMORY})\n")
    ok(verb("sandbox", "delete", box))


def _interruptible() -> None:
    """A shell that runs the tests in the background has it ignored, which is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def forwarding(plane: ControlPlane, cwd: Path, box: str, port: str) -> Iterator[int]:
    """Run `sandbox forward` and give the port that it says."""
    process = subprocess.Popen(
        [sys.executable, "-um", "handiwork", "sandbox", "forward", box, port],
        cwd=cwd,
        env={**os.environ, "HANDIWORK_DATA_DIR": str(plane.data)},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=_interruptible,
    )
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        found = re.match(rf"127\.0\.0\.1:(\d+) leads to port {port} of {box}\n", said)
        assert found is not None, said
        yield int(found[1])
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        process.stdout.close()


def test_a_server_inside_is_reached_here(
    verb: Verb, shared_plane: ControlPlane, tmp_path: Path
) -> None:
    box = make(verb)
    serve = "cd /usr/share; (python3 -m http.server --bind 127.0.0.1 8123 >/dev/null 2>&1 &)"
    ready = "until python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8123))'; do :; done"
    ok(verb("sandbox", "exec", box, "--", "sh", "-c", f"{serve}; {ready} 2>/dev/null"))
    with forwarding(shared_plane, tmp_path, box, "8123") as port:
        for _ in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
                assert b"Directory listing" in answer.read()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 5)
    ok(verb("sandbox", "delete", box))


def test_a_secret_a_policy_and_what_it_decides(
    verb: Verb, shared_plane: ControlPlane, tmp_path: Path
) -> None:
    value = "cli-secret-4f9a7c2e51d8"
    (tmp_path / "web.toml").write_text(POLICY)
    assert verb("policy", "apply", "web.toml").returncode == 2
    out = ok(verb("secret", "set", "docs-key", "--host", "docs.test", given=f"{value}\n"))
    assert out == "secret docs-key version 1 sealed for docs.test\n"
    assert value not in ok(verb("secret", "list", "--json"))
    ok(verb("policy", "apply", "web.toml", "--agent", "agent_01aaaaaaaaaa"))
    assert "web" in ok(verb("policy", "list"))
    assert json.loads(ok(verb("policy", "show", "web")))["rules"][0]["id"] == "docs"
    assert "permitted" in ok(verb("policy", "test", "web", "https://docs.test/a"))
    refused = verb("policy", "test", "web", "https://docs.test/a", "--method", "PUT")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "web/default" in refused.stderr
    held = [path for path in kept_files(shared_plane) if value.encode() in kept_bytes(path)]
    assert not held
    (agent,) = json.loads(ok(verb("agent", "list", "--json")))
    assert agent["policy"] == "web"


def kept_files(plane: ControlPlane) -> list[Path]:
    """Return every file of the data directory, and the log."""
    found = [path for path in plane.data.rglob("*") if path.is_file()]
    names = {path.name for path in found}
    assert {"handiwork.db", "handiwork.db-wal", "admin-key"} <= names
    return [*found, plane.log]


def test_the_search_for_a_secret_finds_what_is_kept(shared_plane: ControlPlane) -> None:
    """The positive control of the search above: a policy's text is in the database."""
    assert any(b"docs.test" in kept_bytes(path) for path in kept_files(shared_plane))


def test_what_a_sandbox_is_refused_is_on_record(verb: Verb) -> None:
    box = make(verb)
    code = "import urllib.request as r; r.urlopen('http://198.18.0.99/x', timeout=5)"
    assert verb("sandbox", "exec", box, "python3", "-c", code).returncode == 1
    rows = json.loads(ok(verb("audit", "list", "--sandbox", box, "--denied", "--json")))
    assert rows
    assert all(row["sandbox_id"] == box and not row["allowed"] for row in rows)
    assert ok(verb("audit", "list", "--sandbox", box)).count("\n") == len(rows) + 1
    assert json.loads(ok(verb("audit", "list", "--sandbox", "sbx_none", "--json"))) == []
    assert "holds" in ok(verb("audit", "verify"))
    ok(verb("sandbox", "delete", box))


async def make_agent(plane: ControlPlane, *steps: dict[str, object]) -> str:
    key, url = plane.brain_key, plane.addresses["local_brain"]
    async with conversation(base_url=url, api_key=key) as talk:
        return await talk.make_agent("cli", model="scripted", system=script(*steps))


async def begin(plane: ControlPlane, agent: str, text: str) -> str:
    key, url = plane.brain_key, plane.addresses["local_brain"]
    async with conversation(base_url=url, api_key=key) as talk:
        session = await talk.make_session(agent, plane.addresses["environment_id"], title="cli")
        await talk.say(session, text)
        return session


def test_a_task_and_its_session(verb: Verb, shared_plane: ControlPlane) -> None:
    steps = [call("bash", command="echo worked in $PWD"), {"say": "done: ${result}"}]
    agent = asyncio.run(make_agent(shared_plane, *steps))
    lines = ok(verb("run", "do it", "--agent", agent)).splitlines()
    assert lines[0].startswith("session sesn_")
    assert lines[1].startswith("→ bash")
    assert "done: worked in /workspace" in lines
    assert lines[-1].endswith("cost not known")
    session = lines[0].split()[1]
    listed = json.loads(ok(verb("session", "list", "--json")))
    assert session in [one["id"] for one in listed]
    shown = json.loads(ok(verb("session", "show", session, "--json")))
    assert (shown["agent_name"], shown["title"]) == ("cli", "do it")
    events = json.loads(ok(verb("session", "events", session, "--json")))
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert ok(verb("session", "events", session)).count("\n") == len(events) + 1


def test_a_session_is_stopped(verb: Verb, shared_plane: ControlPlane) -> None:
    agent = asyncio.run(make_agent(shared_plane, call("bash", command="sleep 100")))
    session = asyncio.run(begin(shared_plane, agent, "wait"))
    wait_until(lambda: sleeping_commands(shared_plane))
    ok(verb("session", "stop", session))
    wait_until(lambda: not sleeping_commands(shared_plane))
    shown = json.loads(ok(verb("session", "show", session, "--json")))
    assert shown["state"] in {"stopped", "refused"}
    assert shown["reason"] == "it was stopped by the operator"
    assert verb("session", "stop", "sesn_none").returncode == 2


def sleeping_commands(plane: ControlPlane) -> bool:
    return any("sleep 100" in one.command for one in descendants(plane.process.pid))


def wait_until(holds: Callable[[], bool]) -> None:
    async def poll() -> None:
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    asyncio.run(poll())


@pytest.mark.timeout(120)
def test_doctor_proves_this_host(tmp_path: Path) -> None:
    done = handiwork("doctor", "--json", cwd=tmp_path)
    assert done.returncode == 0, done
    (report,) = json.loads(done.stdout)
    assert {"userns", "overlay", "seccomp"} <= {one["name"] for one in report["findings"]}
    assert report["checks"]
    assert [check for check in report["checks"] if not check["ok"]] == []
    assert report["protections"]
    tiers = {one["name"]: one for one in report["tiers"]}
    assert list(tiers) == ["namespace", "gvisor", "microvm", "isolate"]
    for one in tiers.values():
        assert one["ok"] or (one["detail"] and one["fix"]), one
    assert tiers["namespace"]["ok"]
    assert tiers["isolate"]["ok"]
    assert "on its platform" in tiers["gvisor"]["detail"], tiers["gvisor"]


def addresses(plane: ControlPlane) -> list[tuple[str, int]]:
    urls = [urlsplit(plane.addresses[name]) for name in ("api", "local_brain")]
    return [(str(url.hostname), int(url.port or 0)) for url in urls]


@pytest.mark.timeout(120)
def test_sigterm_leaves_nothing_running_and_the_next_start_adopts(tmp_path: Path) -> None:
    plane = start(tmp_path)
    verb = verb_of(plane, tmp_path)
    box = make(verb)
    ok(verb("sandbox", "exec", box, "--", "sh", "-c", "echo kept > file; sync"))
    agent = asyncio.run(make_agent(plane, call("bash", command="sleep 100")))
    asyncio.run(begin(plane, agent, "wait"))
    wait_until(lambda: sleeping_commands(plane))
    ours, listening = descendants(plane.process.pid), addresses(plane)
    assert len(ours) > 6
    assert plane.stop(15) == 0
    assert all_gone(ours, 1) == []
    for address in listening:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
    left = [path.name for path in plane.data.rglob("*") if path.is_socket()]
    assert (left, plane.socket.exists(), (plane.data / "addresses.json").exists()) == (
        [],
        False,
        False,
    )
    assert b"Traceback" not in plane.log.read_bytes()
    with running(tmp_path) as again:
        verb = verb_of(again, tmp_path)
        assert state(verb, box) == "sleeping"
        assert ok(verb("sandbox", "exec", box, "cat", "file")) == "kept\n"
        assert state(verb, box) == "running"
    assert b"Traceback" not in plane.log.read_bytes()


@pytest.mark.timeout(120)
def test_kill_9_leaves_no_process_of_ours_and_the_next_start_adopts(tmp_path: Path) -> None:
    plane = start(tmp_path)
    verb = verb_of(plane, tmp_path)
    box = make(verb)
    ok(verb("sandbox", "exec", box, "--", "sh", "-c", "echo kept > file; sync"))
    process = ok(verb("process", "start", box, "--", "sleep", "101")).strip()
    agent = asyncio.run(make_agent(plane, call("bash", command="setsid sleep 100 & sleep 100")))
    asyncio.run(begin(plane, agent, "wait"))
    wait_until(lambda: sleeping_commands(plane))
    ours = descendants(plane.process.pid)
    for kind in ("handiwork.egress", "handiwork.brains.local", "sleep 101", "sleep 100"):
        assert any(kind in one.command for one in ours), kind
    plane.kill()
    assert all_gone(ours) == []
    with running(tmp_path) as again:
        verb = verb_of(again, tmp_path)
        assert state(verb, box) == "sleeping"
        (gone,) = json.loads(ok(verb("process", "list", box, "--json")))
        assert (gone["id"], gone["state"]) == (process, "lost")
        assert gone["reason"] == "it ended with the run of Handiwork that held it"
        assert "not kept any more" in verb("process", "logs", box, process).stderr
        assert ok(verb("sandbox", "exec", box, "cat", "file")) == "kept\n"
