"""A sandbox that is made before it is wanted: nothing runs in it, and nothing leaves, until it is claimed."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from handiwork.sandboxes.probe import has_own_clocks

AHEAD = ("--await-claim", "--hostname", "nobody")
LEAVING = """
import json, socket
told = {}
for name, family, address in (("tcp", 2, "192.0.2.7"), ("tcp6", 10, "2001:db8::1")):
    one = socket.socket(family); one.settimeout(20)
    try: one.connect((address, 80)); told[name] = one.recv(9).decode() or "refused"
    except ConnectionError: told[name] = "refused"
one = socket.socket(2, 2); one.settimeout(20); one.connect(("8.8.8.8", 53))
try: one.send(b"ab" + bytes(10)); told["dns"] = ("answered", "", "failed")[one.recv(99)[3] & 15]
except ConnectionError: told["dns"] = "refused"
print(json.dumps(told))
"""
OPEN = {"tcp": "answer", "tcp6": "answer", "dns": "answered"}


def answer(flow, kind, name, port):
    """Answer every connection, and every question with itself."""
    flow.sendall(b"\0" if kind == 2 else b"\0answer")
    if kind == 2:
        flow.sendall(flow.recv(2 + 12, socket.MSG_WAITALL))


def leaving(pid):
    """Try to leave from its network, without entering anything else of it."""
    inside = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", LEAVING]
    return json.loads(subprocess.run(inside, check=True, capture_output=True).stdout)


def told(box):
    """What its first command finds: its own number, what the agent is held by, and its name."""
    script = (
        "echo $$; grep -E '^(Seccomp|NoNewPrivs):' /proc/1/status; cat /proc/sys/kernel/hostname"
    )
    found = box.run(script).stdout.decode().split()
    return {"first": int(found[0]), "held": found[1:5], "name": found[5]}


HELD = ["NoNewPrivs:", "1", "Seccomp:", "2"]


@pytest.fixture(params=["ranged", "rootless"])
def ahead(request, open_box):
    """One that waits."""
    return open_box(ranged=request.param == "ranged", options=AHEAD)


def waits(box):
    """Wait for its byte without taking it."""
    assert box.sock.recv(1, socket.MSG_PEEK) == b"\1"
    return box.agent_pid()


def test_nothing_ran_before_the_claim(ahead):
    pid = waits(ahead)
    assert ahead.processes() == [pid]
    status = Path(f"/proc/{pid}/status").read_text()
    assert re.search(r"^Seccomp:\s0$", status, re.M)  # it stopped before it was hardened
    ahead.claim()
    ahead.greeted()
    assert told(ahead) == {"first": 2, "held": HELD, "name": "claimed"}
    assert ahead.processes() == [pid]


@pytest.mark.skipif(not has_own_clocks(), reason="needs time namespaces: Linux 5.6, CONFIG_TIME_NS")
def test_its_clocks_count_from_when_it_was_made(ahead):
    waits(ahead)
    ahead.claim()
    ahead.greeted()
    up = ahead.run("cut -d' ' -f1 /proc/uptime")
    assert 0 <= float(up.stdout) < 20 < time.clock_gettime(time.CLOCK_BOOTTIME), up


def test_the_proof_sees_what_ran(ahead):
    """The sabotage: somebody runs a command in it while it waits."""
    pid = waits(ahead)
    subprocess.run(["nsenter", "--target", str(pid), "--pid", "true"], check=True)
    ahead.claim()
    ahead.greeted()
    assert told(ahead)["first"] > 2


def test_nothing_leaves_before_the_claim(ahead, open_exit):
    server = open_exit(answer)
    pid = waits(ahead)
    assert leaving(pid) == dict.fromkeys(OPEN, "refused")
    assert server.flows == []
    ahead.claim(exit_path=server.path)
    ahead.greeted()
    assert leaving(pid) == OPEN  # the control: the same question now sees an exit
    assert {(name, port) for _, name, port in server.flows} >= {("192.0.2.7", 80)}


def test_a_claim_without_an_exit_has_none(ahead):
    ahead.claim()
    ahead.greeted()
    assert leaving(ahead.agent_pid()) == {"tcp": "refused", "tcp6": "refused", "dns": "failed"}


def test_what_is_no_claim_ends_it(ahead):
    ahead.claim(magic=b"HWX1")
    assert ahead.launcher.wait(20) == 125
    assert b"claim: not one" in ahead.launcher.stderr.read()


def test_its_end_is_that_of_the_channel(ahead):
    pid = waits(ahead)
    ahead.sock.close()
    assert ahead.launcher.wait(20) == 0
    assert not Path(f"/proc/{pid}").exists()


def test_it_ends_with_its_launcher(ahead):
    pid = waits(ahead)
    ahead.launcher.send_signal(signal.SIGKILL)
    ahead.launcher.wait(20)
    assert not ahead.leaves([pid])


def test_an_exit_comes_with_the_claim_only(open_box, open_exit):
    server = open_exit(answer)
    box = open_box(options=AHEAD, exit_path=server.path)
    assert box.launcher.wait(20) == 126
    assert b"the exit comes with the claim" in box.launcher.stderr.read()


def test_a_name_that_is_too_long_is_refused(open_box):
    box = open_box(options=("--await-claim", "--hostname", "n" * 65))
    assert box.launcher.wait(20) == 126
