"""`handiwork run` as a user types it: by a control plane that runs, and by one made for the run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from brain_process import call, script
from command_line import handiwork
from control_plane_process import ControlPlane
from process_tree import all_gone, descendants
from provider_stand_in import Provider, anthropic_reply, openai_reply

Verb = Callable[..., CompletedProcess[str]]
WORK = script(
    call("bash", save="made", command="mkdir -p outputs && echo '[b]hi[/b]' | tee outputs/a.txt"),
    {"say": "made ${made}"},
)


@pytest.fixture
def verb(shared_plane: ControlPlane, tmp_path: Path) -> Verb:
    def run(*arguments: str, **variables: str) -> CompletedProcess[str]:
        data = str(shared_plane.data)
        return handiwork("run", *arguments, cwd=tmp_path, HANDIWORK_DATA_DIR=data, **variables)

    (tmp_path / "work.json").write_text(WORK)
    return run


def options(system: str = "work.json") -> tuple[str, ...]:
    return ("--model", "scripted", "--system-file", system)


def test_what_the_agent_does_says_and_leaves(verb: Verb) -> None:
    done = verb("go", *options())
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("session sesn_")
    assert lines[1].startswith("→ bash {")
    assert "made [b]hi[/b]" in lines
    assert "file  a.txt  10 bytes" in lines
    assert "cost not known" in lines[-1]


def test_the_record_as_json(verb: Verb) -> None:
    record = json.loads(verb("go", *options(), "--json").stdout)
    assert (record["state"], record["message"]) == ("ended", "made [b]hi[/b]")
    again = json.loads(verb("go", "--agent", record["agent_id"], "--json").stdout)
    assert again["agent_id"] == record["agent_id"]


def test_exit_codes(verb: Verb, tmp_path: Path) -> None:
    (tmp_path / "slow.json").write_text(script(call("bash", command="sleep 50")))
    slow = verb("go", *options("slow.json"), "--timeout", "1")
    assert (slow.returncode, "the run timed_out: it took more than 1 s" in slow.stdout) == (1, True)
    refused = verb("go", *options(), "--tier", "microvm")
    assert (refused.returncode, "the session was refused" in refused.stdout) == (3, True)
    for wrong in [
        ("go",),
        ("go", "--agent", "a", "--model", "b"),
        ("go", "--environment", "env_1", "--model", "scripted"),
        ("go", *options(), "--policy", "none"),
        ("go", *options("none.json")),
        ("go", "--model", "scripted"),
        ("", *options()),
        ("go", "--agent", "agent_01aaaaaaaaaaaaaaaaaaaaaa"),
    ]:
        done = verb(*wrong)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_model_of_either_kind_from_its_address_and_key(verb: Verb, kind: str) -> None:
    reply = {"openai": openai_reply, "anthropic": anthropic_reply}[kind]
    with Provider(key="sk-of-the-test") as provider:
        url = {"openai": provider.openai_url, "anthropic": provider.anthropic_url}[kind]
        provider.replies.append(reply(calls=[("call_1", "bash", {"command": "echo from-bash"})]))
        provider.replies.append(reply("it said from-bash"))
        options = ("--model", kind, "--base-url", url, "--json")
        done = verb("go", *options, **{f"{kind.upper()}_API_KEY": "sk-of-the-test"})
        assert done.returncode == 0, done
        record = json.loads(done.stdout)
        assert (record["message"], record["stop_reason"]) == ("it said from-bash", "end_turn")
        assert record["usage"]["input_tokens"] > 0
        last = json.dumps(provider.requests[-1].body)
        assert "from-bash" in last
        assert "sk-of-the-test" not in done.stdout + done.stderr


@pytest.mark.timeout(150)
def test_without_a_control_plane_one_is_made_for_the_run(tmp_path: Path) -> None:
    (tmp_path / "work.json").write_text(WORK)
    told = handiwork("run", "go", *options(), cwd=tmp_path)
    assert (told.returncode, told.stderr) == (0, "")
    assert "one is started for this run" in told.stdout
    assert not (tmp_path / "data/api.sock").exists()
    done = handiwork("run", "again", *options(), "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["message"] == "made [b]hi[/b]"


def test_a_run_of_its_own_control_plane_ends_with_it(tmp_path: Path) -> None:
    (tmp_path / "slow.json").write_text(script(call("bash", command="sleep 50"), {"say": "x"}))
    process = subprocess.Popen(
        [sys.executable, "-m", "handiwork", "run", "go", *options("slow.json")],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "HANDIWORK_DATA_DIR": str(tmp_path / "data"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("→ bash"):
            break
    time.sleep(0.5)
    started = descendants(process.pid)
    assert started
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=40)
    assert process.returncode == 1, errors
    assert not all_gone(started)
    assert "Traceback" not in errors
