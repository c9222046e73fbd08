"""Builds the guest agent and the isolate cell into the wheel, which thereby becomes one for this platform."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROGRAMS = {"guest": "guest_agent", "cell": "isolate_cell"}
"""By the directory of its sources, whose build.sh makes it."""
BESIDE = ("isolate_cell_python", "isolate_cell.LICENSE")
"""A library of the same sources, and the licence of the JavaScript engine that is linked into the cell."""


class ProgramsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs each build.sh before a wheel, editable or not, is put together."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        if sys.platform != "linux":
            raise SystemExit("handiwork: its programs can be built on Linux only")
        root = Path(self.root)
        for sources, name in PROGRAMS.items():
            build(root / sources, root / "src/handiwork" / name)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{platform.machine()}"
        if version != "editable":
            for name in (*PROGRAMS.values(), *BESIDE):
                build_data["force_include"][str(root / "src/handiwork" / name)] = (
                    f"handiwork/{name}"
                )


def build(sources: Path, output: Path) -> None:
    # What a build in isolation puts first on the path has no pip, with which sources are got.
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    built = subprocess.run(
        [sources / "build.sh", "--output", output],
        env={**own, "PYTHON": sys.executable},
        check=False,
        capture_output=True,
        text=True,
    )
    if built.returncode:
        raise SystemExit(f"handiwork: {output.name} was not built: {built.stderr.strip()}")
