"""Clocks of its own: who may have none for a limit is told, and does not get the host's in silence."""

import subprocess
from pathlib import Path

GUEST = Path(__file__).parents[3] / "guest"
HARNESS = r"""
#include "clocks.h"
int main(void) { clocks_restart(); return 0; }
"""


def test_a_limit_ends_the_program_by_name(tmp_path):
    (tmp_path / "main.c").write_text(HARNESS)
    program = tmp_path / "clocks"
    files = [tmp_path / "main.c", GUEST / "clocks.c", GUEST / "fatal.c"]
    subprocess.run(["cc", "-std=gnu11", f"-I{GUEST}", "-o", program, *files], check=True)
    limit = f"echo 0 >/proc/sys/user/max_time_namespaces && exec {program}"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", limit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        125,
        "handiwork-guest: time namespace: user.max_time_namespaces is reached: raise it\n",
    )
