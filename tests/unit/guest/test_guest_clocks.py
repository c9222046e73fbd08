"""Clocks of its own: who forbids them gets the host's; who may have no more of them is told, not given those in silence."""

import subprocess
from pathlib import Path

import pytest

GUEST = Path(__file__).parents[3] / "guest"
HARNESS = r"""
#include "clocks.h"
#include <stdio.h>
#include <time.h>
int main(void)
{
    struct timespec up;
    clocks_look();
    clocks_restart();
    clock_gettime(CLOCK_BOOTTIME, &up);
    printf("%d %d\n", clocks_are_forbidden(), up.tv_sec > 5);
    return 0;
}
"""
OWN = "exec {}"
FORBIDDEN = "echo 0 >/proc/sys/user/max_time_namespaces && exec {}"
REACHED = "echo 0 >/proc/sys/user/max_time_namespaces && exec unshare --user --map-root-user {}"
"""In a namespace below that one another limit is read, and none of its own is what stops it."""


@pytest.fixture
def told(tmp_path):
    (tmp_path / "main.c").write_text(HARNESS)
    program = tmp_path / "clocks"
    files = [tmp_path / "main.c", GUEST / "clocks.c", GUEST / "fatal.c"]
    subprocess.run(["cc", "-std=gnu11", f"-I{GUEST}", "-o", program, *files], check=True)

    def run(script):
        argv = ["unshare", "--user", "--map-root-user", "sh", "-c", script.format(program)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    return run


def test_where_it_is_forbidden_the_hosts_clocks_stay(told):
    assert told(FORBIDDEN) == (0, "1 1\n", "")


def test_another_limit_ends_the_program_by_name(told):
    why = "time namespace: user.max_time_namespaces is reached: raise it"
    assert told(REACHED) == (125, "", f"handiwork-guest: {why}\n")


@pytest.mark.skipif(
    not Path("/proc/self/ns/time").exists(),
    reason="needs time namespaces: Linux 5.6, CONFIG_TIME_NS",
)
def test_else_they_are_its_own(told):
    assert told(OWN) == (0, "0 0\n", "")
