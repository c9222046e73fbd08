"""The soak: what grows is seen to grow, and two minutes of it are flat."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
_spec = importlib.util.spec_from_file_location("samples", BENCH / "parts" / "samples.py")
samples = importlib.util.module_from_spec(_spec)
sys.modules["samples"] = samples
_spec.loader.exec_module(samples)


def test_the_slope_tells_growth_from_noise() -> None:
    noisy = [(float(at), {"x mib": 100.0 + at % 3, "x descriptors": 40.0}) for at in range(100)]
    growing = [(at, {**found, "x mib": found["x mib"] + at / 5}) for at, found in noisy]
    allowed = {"mib": 6.0, "descriptors": 6.0}
    assert [one.flat for one in samples.judge(noisy, allowed)] == [True, True]
    by_name = {one.name: one for one in samples.judge(growing, allowed)}
    assert not by_name["x mib"].flat
    assert by_name["x mib"].growth == pytest.approx(10, abs=1)
    assert by_name["x descriptors"].flat


def test_what_is_used_for_a_moment_is_no_growth_and_what_leaks_beside_it_is() -> None:
    busy = [(float(at), {"x descriptors": 40.0 + at % 7 * at / 4}) for at in range(100)]
    leaks = [(at, {"x descriptors": found["x descriptors"] + at / 5}) for at, found in busy]
    assert samples.judge(busy, {"descriptors": 3.0})[0].flat
    assert not samples.judge(leaks, {"descriptors": 3.0})[0].flat


def test_a_warm_up_that_grows_is_not_held_against_the_rest() -> None:
    settled = [(float(at), {"x mib": min(at, 50.0)}) for at in range(100)]
    assert samples.judge(settled, {"mib": 1.0})[0].flat


GROWS = """
import mmap, os, subprocess, sys, tempfile
print("before", flush=True)
sys.stdin.readline()
kept = os.urandom(32 << 20)
opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(48)]
file = tempfile.TemporaryFile()
file.write(bytes(48 << 20))
file.flush()
everybodys = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
everybodys.read()
child = subprocess.Popen(["sleep", "60"])
print("after", flush=True)
sys.stdin.readline()
child.kill()
"""
"""A process of its own: what a test runner holds comes and goes with whatever ran before."""


def test_descriptors_memory_and_processes_are_seen() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GROWS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as grows:
        assert grows.stdout.readline() == b"before\n"
        before = samples.sample(grows.pid)
        grows.stdin.write(b"\n")
        assert grows.stdout.readline() == b"after\n"
        after = samples.sample(grows.pid)
        grows.stdin.write(b"\n")
    gained = {name: after[name] - before[name] for name in before}
    assert gained["control plane descriptors"] == 50
    assert 31 <= gained["control plane mib"] < 40
    assert gained["processes"] == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_minutes_of_sessions_are_flat() -> None:
    told = subprocess.run(
        [sys.executable, BENCH / "soak.py", "--minutes", "2"], capture_output=True, text=True
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert " tasks " in told.stdout
