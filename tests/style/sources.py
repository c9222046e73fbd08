"""The files that the repository holds, or would hold at the next commit."""

import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_IGNORED = {".git", ".venv", ".peers", "__pycache__", "build", "dist"}


@functools.cache
def tracked() -> tuple[Path, ...]:
    """Return every file that is tracked, or new and not ignored."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-coz", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not _IGNORED & set(path.parts)]
    return tuple(sorted(path for path in paths if path.is_file()))


def written_in(*suffixes: str, under: str = ".") -> list[Path]:
    """Return the files with one of these endings below a folder of the repository."""
    top = (ROOT / under).resolve()
    return [path for path in tracked() if path.suffix in suffixes and top in path.parents]


def scripts() -> list[Path]:
    """Return the shell scripts, those without an ending included."""
    return [*written_in(".sh"), ROOT / "run", ROOT / ".ci/run"]


def name(path: Path) -> str:
    """Return a path as a reader of the repository names it."""
    return str(path.relative_to(ROOT))
