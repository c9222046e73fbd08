"""`handiwork sandbox exec`: its streams are ours, whole; what the exit code does not say is said."""

import asyncio
import json
import subprocess
import sys

import pytest

from handiwork.model.sandbox import OUT_OF_MEMORY
from handiwork.model.wire import MAX_STDIN_BYTES


@pytest.fixture
def box(api, handiwork) -> str:
    return handiwork("sandbox", "create").out.strip()


def requests(api, box: str):
    return api.served.sandboxes.live[box].requests


def test_its_streams_and_its_code_are_ours(api, handiwork, box) -> None:
    done = handiwork("sandbox", "exec", box, "echo", "one", "--two", "-n")
    assert (done.code, done.out, done.err) == (0, "one--two-n", "done")
    assert handiwork("sandbox", "exec", box, "false").code == 1
    assert requests(api, box)[-1].output_limit_bytes == 0


def test_what_stands_behind_the_id_is_the_commands(api, handiwork, box) -> None:
    options = ("--cwd", "/tmp", "--env", "A=b=c", "--env", "EMPTY=", "--user", "nobody")
    done = handiwork("sandbox", "exec", *options, "--timeout-seconds", "7", box, "echo", "--json")
    assert done.out == "--json"
    request = requests(api, box)[-1]
    assert (request.argv, request.cwd) == (("echo", "--json"), "/tmp")
    assert (request.env, request.user) == ({"A": "b=c", "EMPTY": ""}, "nobody")
    assert (request.timeout_seconds, request.stdin) == (7.0, None)
    assert handiwork("sandbox", "exec", box, "--", "echo", "--cwd").out == "--cwd"


def test_input_is_given_on_demand(api, handiwork, box, typed) -> None:
    typed(b"typed")
    assert handiwork("sandbox", "exec", "--stdin", box, "cat").out == "typed"
    typed(bytes(MAX_STDIN_BYTES + 1))
    done = handiwork("sandbox", "exec", "-i", box, "cat")
    assert (done.code, done.out) == (2, "")
    assert "standard input is larger than" in done.err


def test_what_the_code_does_not_say_is_said(api, handiwork, box) -> None:
    assert handiwork("sandbox", "exec", box, "late").err == "handiwork: stopped after 120.0 s\n"
    assert handiwork("sandbox", "exec", box, "make").err == f"handiwork: {OUT_OF_MEMORY}\n"
    done = handiwork("sandbox", "exec", "--json", box, "talk")
    assert done.err.startswith("handiwork: truncated: the rest of its output was dropped")
    assert json.loads(done.out)["truncated"] is True
    assert requests(api, box)[-1].output_limit_bytes == 8 << 20


@pytest.mark.parametrize(
    ("options", "command", "said"),
    [
        ((), ("--cwd", "/tmp", "true"), "options stand before the sandbox's id"),
        ((), ("--",), "options stand before the sandbox's id"),
        (("--env", "A"), ("true",), "'A' is not NAME=VALUE"),
        (("--env", "=b"), ("true",), "'=b' is not NAME=VALUE"),
        ((), (), "command"),
    ],
)
def test_what_is_not_meant_so_runs_nothing(api, handiwork, box, options, command, said) -> None:
    done = handiwork("sandbox", "exec", *options, box, *command)
    assert (done.code, done.out) == (2, "")
    assert said in done.err.lower() or said in done.err
    assert requests(api, box) == []


def test_it_ends_with_who_reads_it(api, box, tmp_path) -> None:
    command = [sys.executable, "-m", "handiwork", "sandbox", "exec", box, "flood"]
    environment = {"HANDIWORK_DATA_DIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as flood:
        assert flood.stdout.read(100_000)
        flood.stdout.close()
        assert (flood.wait(30), flood.stderr.read()) == (141, b"")

    async def killed() -> None:
        for _ in range(500):
            if api.served.sandboxes.live[box].signals:
                return
            await asyncio.sleep(0.01)

    api(killed())
    assert api.served.sandboxes.live[box].signals == [9]
