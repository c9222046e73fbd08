"""`./run` asked wrongly, or where it may not install: one line that says what to do, exit 2, nothing made."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "run"
VERBS = ["demo", "test", "check", "bench", "lock", "help"]
# What the script itself calls; every other program is missing on the bare machine.
BARE = ["cat", "cut", "dirname", "find", "head", "mktemp", "rm", "sh", "sha256sum", "sort", "tail"]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a folder with the script alone, on a machine that has a shell and little else."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    shutil.copy(SCRIPT, folder)
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in BARE:
        (programs / program).symlink_to(shutil.which(program))
    give(programs / "id", 'echo "${FAKE_ID:-1000}"')
    return folder


def give(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def run(clone: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", clone / "run", *arguments],
        env={"PATH": str(clone.parent / "bin"), "TMPDIR": str(clone.parent), **variables},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_tells_every_verb(clone: Path) -> None:
    told = run(clone, "help")
    assert told.returncode == 0
    assert all(f"\n  {verb} " in told.stdout for verb in VERBS)
    assert run(clone).stdout == told.stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["frobnicate"], "frobnicate"),
        (["bench", "nothing"], "nothing"),
        (["bench", "--fast"], "--fast"),
        (["check", "now"], "no argument"),
    ],
)
def test_a_wrong_word_is_refused_before_anything_is_made(
    clone: Path, arguments: list[str], word: str
) -> None:
    (clone / "bench").mkdir()
    told = run(clone, *arguments)
    assert told.returncode == 2
    assert word in told.stderr.splitlines()[-1]
    assert not (clone / ".venv").exists()


def test_an_ordinary_user_is_told_what_root_must_install(clone: Path) -> None:
    give(clone.parent / "bin/apt-get", "exit 99")
    told = run(clone, "test")
    assert told.returncode == 2
    (line,) = told.stderr.splitlines()
    assert line.startswith("run: missing; as root: apt-get install --no-install-recommends ")
    assert {"gcc", "curl", "bubblewrap", "nodejs"} <= set(line.split())
    assert not (clone / ".venv").exists()


def test_a_machine_without_apt_is_told_what_is_missing(clone: Path) -> None:
    told = run(clone, "demo", FAKE_ID="0")
    assert told.returncode == 2
    assert "no apt-get" in told.stderr
    assert "curl" in told.stderr


def test_root_without_a_network_is_shown_what_apt_said(clone: Path) -> None:
    give(clone.parent / "bin/apt-get", 'echo "E: no network" >&2; exit 100')
    told = run(clone, "demo", FAKE_ID="0")
    assert told.returncode == 2
    assert "E: no network" in told.stderr
    assert told.stderr.splitlines()[-1] == "run: apt-get update failed"
    assert not (clone / ".venv").exists()
    assert not list(clone.parent.glob("tmp.*"))
