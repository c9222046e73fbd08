"""The wheel as others get it: all of its data, an agent that runs, the demo without a compiler."""

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEVER_BUILT = shutil.ignore_patterns(
    ".git", ".venv", ".peers", "__pycache__", ".*_cache", ".hypothesis", "guest_agent*", "dist"
)
BUILD_SECONDS, DEMO_SECONDS = 240, 150

pytestmark = [
    pytest.mark.timeout(BUILD_SECONDS + 20),
    pytest.mark.skipif(shutil.which("cc") is None, reason="the build needs a C compiler"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds from a clean copy of the sources, with what this venv holds."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "copy", ignore=NEVER_BUILT)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    built = subprocess.run(
        [*pip, "--wheel-dir", folder, folder / "copy"],
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_SECONDS,
    )
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment that holds the wheel, and of ours the packages that it depends on."""
    folder = tmp_path_factory.mktemp("home") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=60)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    subprocess.run(
        [folder / "bin/python", "-m", "pip", "install", "--no-deps", "--no-index", wheel],
        check=True,
        capture_output=True,
        timeout=60,
    )
    # Searched after the environment's own; the path files in it (our editable install) are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_it_holds_the_agent_and_all_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as held:
        names = set(held.namelist())
        mode = held.getinfo("handiwork/guest_agent").external_attr >> 16
        entry = held.read(next(name for name in names if name.endswith("entry_points.txt")))
    assert stat.S_IMODE(mode) & 0o111 == 0o111
    assert b"handiwork = handiwork.__main__:main" in entry
    source = ROOT / "src"
    written = {
        str(path.relative_to(source))
        for path in (source / "handiwork").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != "guest_agent.new"
    }
    assert written - names == set()
    assert "handiwork/py.typed" in names
    assert any(name.startswith("handiwork/store/migrations/") for name in names)
    assert any(name.startswith("handiwork/brains/local/migrations/") for name in names)
    assert not [name for name in names if name.endswith((".c", ".o", ".new", ".pyc"))]
    assert wheel.name.endswith(f"-py3-none-linux_{os.uname().machine}.whl")


def test_it_runs_from_where_it_was_installed(venv: Path, tmp_path: Path) -> None:
    code = "import handiwork, handiwork.app as a; print(handiwork.__file__, a.GUEST_AGENT.stat())"
    done = subprocess.run(
        [venv / "bin/python", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.startswith(str(venv)), done


def without_compilers(folder: Path) -> Path:
    """Return a directory of links to all that PATH holds but compilers, linkers and make."""
    folder.mkdir()
    banned = ("cc", "gcc", "c++", "g++", "clang", "tcc", "ld", "as", "make", "cpp", "c89", "c99")
    for place in ("/usr/sbin", "/usr/bin"):
        for program in Path(place).iterdir():
            plain = program.name.rpartition("-linux-gnu-")[2].partition("-")[0]
            if plain not in banned and not (folder / program.name).exists():
                (folder / program.name).symlink_to(program)
    return folder


@pytest.mark.timeout(DEMO_SECONDS + 60)
def test_it_plays_the_demo_without_a_compiler(venv: Path, tmp_path: Path) -> None:
    path = without_compilers(tmp_path / "bin")
    assert shutil.which("cc", path=str(path)) is None
    assert shutil.which("gcc", path=str(path)) is None
    done = subprocess.run(
        [venv / "bin/handiwork", "demo"],
        cwd=tmp_path,
        env={"PATH": str(path), "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEMO_SECONDS,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "What was shown" in done.stdout
