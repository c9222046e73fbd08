"""The promise to a newcomer: a clean clone on a fresh Debian 12 is set up and run by one command.

Of the tests a part runs there, from every kind that needs something installed or started; `sh
tests/fresh_root/run.sh test` runs all.
"""

import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.sh")
PART = [
    "tests/contract/test_sandbox.py::test_a_machine_comes_up",
    "tests/contract/test_sandbox.py::test_gvisor",
    "tests/contract/test_blobs.py",
    "tests/integration/guest/test_guest_capture.py",
    "tests/integration/guest/test_guest_exec.py",
    "tests/integration/test_image_builds.py",
    "tests/integration/test_sessions.py",
    "tests/unit/guest/test_guest_codec.py",
]


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "arguments",
    [["--twice", "demo"], ["--user", "--twice", "demo"], ["--first", "check", "test", *PART]],
    ids=["demo-root", "demo-user", "check-and-test"],
)
def test_a_clean_clone_runs_on_a_fresh_debian(arguments: list[str]) -> None:
    ended = subprocess.run(
        ["sh", RUN, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-8000:]
    print(ended.stdout[-2000:])
