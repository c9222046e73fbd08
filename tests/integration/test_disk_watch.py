"""Where no disk of its own bounds a sandbox's files they are watched: it is stopped over its limit, softly."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handiwork.sandboxes.namespace import DEFAULT_AGENT, NamespaceDriver
from rootless_disk import OVER, SPEC, WITHIN, scenario

TESTS = Path(__file__).parents[1]


def check(name, told):
    if name not in OVER:
        assert told == [""]
        return
    why = (
        "cannot be counted" if name == "nested" else "take more than 64 MiB, or are more than 4096"
    )
    assert told[0].startswith(f"it is over disk_mib = 64: its files {why}")
    assert told[1:] in ([], [told[0], ""])


def launchers():
    """The processes of this host that are named after the sandbox."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [path] if SPEC.id.encode() in path.read_bytes() else []
    return found


@pytest.mark.parametrize("name", [*OVER, *WITHIN])
async def test_without_disks(tmp_path, monkeypatch, name):
    """As root or not: on a kernel, or for a user, that cannot have disks."""
    monkeypatch.setattr("handiwork.sandboxes.disks.can_limit_disks", lambda: False)
    driver = NamespaceDriver(tmp_path, clock=lambda: datetime.now(UTC))
    assert driver.protections()["disk_watch"]
    check(name, await scenario(driver, name))
    assert launchers() == []


@pytest.fixture
def open_dir():
    """A directory that another user can reach, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="handiwork-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
@pytest.mark.parametrize("name", [*OVER, *WITHIN])
def test_rootless(open_dir, name):
    data_dir = open_dir / "data"
    data_dir.mkdir(mode=0o700)
    os.chown(data_dir, 65534, 65534)
    agent = shutil.copy(DEFAULT_AGENT, open_dir)
    script = [sys.executable, str(TESTS / "rootless_disk.py"), str(data_dir), agent, name]
    done = subprocess.run(script, capture_output=True, timeout=55, cwd="/", text=True, check=False)
    assert done.returncode == 0, done.stderr
    check(name, json.loads(done.stdout))
