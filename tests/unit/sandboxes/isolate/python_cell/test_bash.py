"""The bash of a cell, as a class: what a script gives, and what stays from one to the next."""

import base64

import pytest

from handiwork.sandboxes.isolate.python_cell.bash import Bash
from handiwork.sandboxes.isolate.python_cell.calls import CallError


class Host:
    """A workspace of one file."""

    def __init__(self):
        self.written = {}
        self.refuses = False

    def ask(self, name, given):
        if name == "workspace.tree":
            entries = [["/workspace", 0, 0, 0o755], ["/workspace/a", 1, 2, 0o644]]
            return {"entries": entries, "more": False}
        if name == "workspace.readBytes":
            return {"$bytes": base64.b64encode(b"1\n").decode()}
        if self.refuses:
            raise CallError("ToolFailedError", "it is full")
        self.written[given["path"]] = base64.b64decode(given["content"]["$bytes"])
        return None


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def run(host):
    shell = Bash()
    return lambda code, **env: shell.run(code, env, host.ask)


@pytest.mark.parametrize(
    ("code", "given"),
    [
        ("cat a; pwd", (0, "1\n/workspace\n", "")),
        ("echo out; echo err >&2; exit 7", (7, "out\n", "err")),
        ("nothing", (127, "", "bash: line 1: nothing: command not found")),
        ("f() { f; }; f", (1, "", "resource limit exceeded: maximum function depth exceeded (16)")),
        ("echo $(seq 20000 | wc -l)", (0, "20000\n", "")),
        ("i=0; while ((i < 20000)); do ((++i)); done; echo $i", (0, "20000\n", "")),
        ("whoami; hostname", (0, "user\nsandbox\n", "")),
        ("curl -s http://example.com", (1, "", ...)),
        ("python3 -c 1", (127, "", "bash: line 1: python3: command not found")),
    ],
)
def test_a_script(run, code, given):
    done = run(code)
    expected = dict(zip(("exit_code", "stdout", "stderr"), given, strict=True))
    if given[2] is ...:
        assert done.pop("stderr")
        del expected["stderr"]
    assert done == expected


def test_a_broken_script_says_where(run):
    done = run("if true; then")
    assert done["exit_code"] == 1
    assert done["stderr"].startswith("parse error at line ")


def test_what_stays(run):
    run("x=1; export y=2; cd /tmp; f() { echo f; }")
    assert run("echo $x $y; pwd; f")["stdout"] == "1 2\n/tmp\nf\n"


def test_its_environment_is_that_of_each_run(run):
    assert run("echo $KEY; env | grep ^KEY=", KEY="a b")["stdout"] == "a b\nKEY=a b\n"
    assert run("echo $KEY", KEY="$(c)")["stdout"] == "$(c)\n"


def test_what_it_changed_is_written(run, host):
    assert run("echo 2 > b")["exit_code"] == 0
    assert host.written == {"/workspace/b": b"2\n"}


def test_what_could_not_be_written_is_a_failure(run, host):
    host.refuses = True
    done = run("echo 2 > b")
    assert (done["exit_code"], done["stderr"]) == (1, "[not saved: /workspace/b: it is full]")
    assert run("exit 3")["exit_code"] == 3


def test_two_have_different_chances(host):
    first, second = (Bash().run("echo $RANDOM $RANDOM", {}, host.ask) for _ in range(2))
    assert first["stdout"] != second["stdout"]
