"""In children, for none of this can be undone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from handiwork import process

REPORT = """
print(os.getresuid(), os.getresgid(), os.getgroups(), resource.getrlimit(resource.RLIMIT_CORE)[0])
for line in open('/proc/self/status'):
    if line.split(':')[0] in ('CapBnd', 'CapEff', 'NoNewPrivs'): print(line.strip())
"""


def run(code: str, home: str = "") -> str:
    script = (
        f"import os, resource, signal\nfrom handiwork import process\nHOME_DIR = {home!r}\n"
        + code
        + REPORT
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: drops to another id")
def test_a_dropped_process_has_no_way_back() -> None:
    said = run("process.become(64101, HOME_DIR); process.harden()")
    assert "(64101, 64101, 64101) (64101, 64101, 64101) [] 1" in said
    assert "CapEff:\t0000000000000000" in said
    with pytest.raises(subprocess.CalledProcessError):
        run("process.become(64101, HOME_DIR); os.setresuid(0, 0, 0)")


def test_a_host_that_permits_no_core_at_all() -> None:
    assert "] 0\n" in run("resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); process.harden()")


def test_a_hardened_process_is_not_dumpable() -> None:
    look = "import ctypes; print('dumpable', ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"
    assert "dumpable 1" in run(look)
    assert "dumpable 0" in run("process.harden()\n" + look)


def test_no_set_id_program_helps() -> None:
    assert "NoNewPrivs:\t1" in run("process.harden()")
    assert "NoNewPrivs:\t0" in run("process.harden(may_gain=True)")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: has capabilities to lose")
def test_only_kept_capabilities_can_be_had_again() -> None:
    assert "CapBnd:\t0000000000200001" in run("process.harden(keep_capabilities=(0, 21))")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another id looks")
def test_nobody_of_the_same_id_reads_its_memory() -> None:
    code = "process.become(64101, HOME_DIR)\n{}\nchild = os.fork()\nif child == 0:\n    signal.pause(); os._exit(0)\n"
    look = "print(os.access(f'/proc/{child}/mem', os.R_OK)); os.kill(child, 9); os.wait()\n"
    assert "True" in run(
        code.format("import ctypes; ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)") + look
    )
    assert "False" in run(code.format("process.harden()") + look)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: binds a directory")
def test_it_finds_its_directory_behind_one_that_only_root_enters(tmp_path: Path) -> None:
    home = tmp_path / "closed" / "home"
    home.mkdir(parents=True)
    home.parent.chmod(0o700)
    os.chown(home, 64101, 64101)
    become = "process.become(64101, HOME_DIR)\n"
    run(become + "open('/srv/file', 'w').write('x')\n", str(home))
    assert (home / "file").read_text() == "x"
    assert not Path("/srv/file").exists()
    with pytest.raises(subprocess.CalledProcessError):
        run(become + "open(HOME_DIR + '/file')\n", str(home))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: tells it from root of a namespace")
def test_root_of_a_user_namespace_is_not_root() -> None:
    whole = "         0          0 4294967295\n"
    assert process.is_root(whole)
    assert not process.is_root("         0       1000          1\n")


def test_places_are_grouped_by_the_outermost_wall() -> None:
    closed = {Path("/root"), Path("/root/a"), Path("/srv/x")}
    places = {Path("/usr/lib"), Path("/root/a/venv"), Path("/root/a/venv/lib"), Path("/srv/x/code")}
    assert process.walled(places, lambda path: path not in closed) == {
        Path("/root"): [Path("/root/a/venv")],
        Path("/srv/x"): [Path("/srv/x/code")],
    }


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: covers a directory")
def test_code_behind_a_wall_can_be_imported_late_and_nothing_else_is_seen(tmp_path: Path) -> None:
    code, home = tmp_path / "closed" / "code", tmp_path / "home"
    for directory in (code, home):
        directory.mkdir(parents=True)
    code.parent.chmod(0o700)
    (code.parent / "other").write_text("x")
    (code / "late_module.py").write_text("said = 'imported'\n")
    late = f"import sys; sys.path.append({str(code)!r})\nprocess.become(64101, HOME_DIR)\n"
    assert "imported" in run(late + "import late_module; print(late_module.said)\n", str(home))
    look = f"print(os.listdir({str(code.parent)!r}))\n"
    assert "['code']" in run(late + look, str(home))
    assert {entry.name for entry in code.parent.iterdir()} == {"code", "other"}


def test_code_that_only_root_enters_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert process.closed_code() is None
    closed = tmp_path / "venv"
    closed.mkdir(mode=0o700)
    monkeypatch.syspath_prepend(str(closed))
    assert process.closed_code() == closed
    monkeypatch.chdir(closed)
    assert process.closed_code() is None


def test_all_descriptors_that_we_may_have_are_ours() -> None:
    code = "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512)); process.raise_descriptors();"
    said = run(code + "print(resource.getrlimit(resource.RLIMIT_NOFILE))")
    assert "(512, 512)" in said
