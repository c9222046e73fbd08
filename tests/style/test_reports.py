"""The report of a failed test is never cut by the test's own timer, which would end the whole run."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
FAILS = """
import inspect, time
import pytest

@pytest.mark.timeout(1)
def test_fails():
    found = inspect.findsource
    def slowly(what):
        inspect.findsource = found
        time.sleep(1.2)
        return found(what)
    inspect.findsource = slowly
    raise OSError("the failure")
"""


def test_a_failure_that_takes_long_to_tell_is_one(tmp_path):
    (tmp_path / "test_it.py").write_text(FAILS)
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", tmp_path]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "OSError: the failure" in done.stdout
    assert "1 failed" in done.stdout
