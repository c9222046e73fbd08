"""A cell's guest side as a process of its own, without its cage."""

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from handiwork.sandboxes import isolate

START = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    "from python_cell.link import Link; from python_cell.session import Session;"
    "Session(Link(int(sys.argv[2]))).serve()"
)


class Cell:
    def __init__(self, host):
        self._host = host

    def send(self, frame):
        text = json.dumps(frame).encode()
        self._host.sendall(struct.pack("<I", len(text)) + text)

    def read(self):
        (length,) = struct.unpack("<I", self._host.recv(4, socket.MSG_WAITALL))
        return json.loads(self._host.recv(length, socket.MSG_WAITALL))

    def run(self, code, name="/workspace/code.py"):
        """Run it, answering each call with its argument; returns the end, and all lines."""
        lines = []
        self.send({"t": "run", "code": code, "name": name, "env": {"GIVEN": "one"}})
        while (said := self.read())["t"] == "turn":
            lines += said["l"]
            for call in said["c"]:
                value = None if call["n"] == "workspace.find_module" else call["a"]
                self.send({"t": "settled", "s": [{"id": call["id"], "ok": True, "v": value}]})
        return said, lines


@contextlib.contextmanager
def started(program, *arguments):
    host, guest = socket.socketpair()
    host.settimeout(30)
    argv = [sys.executable, "-I", "-S", "-c", program, str(Path(isolate.__file__).parent)]
    with guest:
        argv += [str(guest.fileno()), *arguments]
        process = subprocess.Popen(argv, pass_fds=[guest.fileno()])
    with host:
        yield Cell(host)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    process.kill()
    assert process.wait() in (0, -9)


@pytest.fixture
def cell():
    with started(START) as found:
        yield found


def test_names_stay_from_run_to_run(cell):
    assert cell.run("x = 20")[0]["v"] is None
    assert cell.run("import json\nx + 1")[0] == {"t": "done", "ok": True, "v": 21}
    assert cell.run("json.dumps([x])")[0]["v"] == "[20]"


def test_what_is_printed_is_its_log(cell):
    done, lines = cell.run(
        "import sys\nprint('a\\nb')\nprint('c', file=sys.stderr)\nprint('d', end='')"
    )
    assert done["ok"]
    assert lines == [["log", "a"], ["log", "b"], ["error", "c"], ["log", "d"]]


def test_calls_and_an_event_loop_of_each_run(cell):
    code = "import asyncio\nawait asyncio.gather(codemode.a(x=1), workspace.b({'y': 2}), asyncio.sleep(0.01, 3))"
    for _ in range(2):
        assert cell.run(code)[0]["v"] == [{"x": 1}, {"y": 2}, 3]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("a b", "SyntaxError"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import sys\nsys.exit('no')", "SystemExit"),
        ("import asyncio\nawait asyncio.Event().wait()", "StuckError"),
        ("input()", "EOFError"),
        ("a = []\na.append(a)\na", "ValueError"),
        ("class E(BaseException):\n    def __str__(self): return self\nraise E", "E"),
    ],
)
def test_errors_are_told_and_it_goes_on(cell, code, name):
    done, _ = cell.run(code)
    assert (done["ok"], done["e"]["name"]) == (False, name)
    assert cell.run("1")[0]["v"] == 1


def test_an_end_without_a_fault_is_none(cell):
    assert cell.run("import sys\nsys.exit()")[0] == {"t": "done", "ok": True, "v": None}


def test_what_a_run_left_behind_does_not_reach_the_next(cell):
    cell.run(
        "import asyncio\nasyncio.get_running_loop().create_task(asyncio.sleep(60))\nprint('x', end='')"
    )
    done, lines = cell.run("2")
    assert (done["v"], lines) == (2, [])


def test_without_a_host_it_ends(cell):
    pid = cell.run("import os\nos.getpid()")[0]["v"]
    cell._host.shutdown(socket.SHUT_RDWR)
    assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT).si_status == 0


BASH = START.replace(
    "Session(Link(int(sys.argv[2]))).serve()",
    "from python_cell.session import BashSession\n"
    "class Shell:\n"
    "    def run(self, code, env, ask):\n"
    "        return [code, env['GIVEN'], ask('workspace.tree', {})]\n"
    "session = BashSession(Link(int(sys.argv[2])), Shell)\n"
    "if sys.argv[3] == 'born': session.born()\n"
    "session.serve()",
)


@pytest.fixture
def shell_cell(request):
    with started(BASH, request.param) as found:
        yield found


@pytest.mark.parametrize("shell_cell", ["born"], indirect=True)
def test_a_shell_gets_the_script_its_environment_and_the_host(shell_cell):
    for _ in range(2):
        assert shell_cell.run("echo")[0]["v"] == ["echo", "one", {}]


@pytest.mark.parametrize("shell_cell", ["not born"], indirect=True)
def test_a_cell_without_its_shell_says_so(shell_cell):
    assert shell_cell.run("echo")[0]["e"]["message"] == "there is no shell yet"
