"""Builds the guest agent into the wheel, which thereby becomes one for this platform."""

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

AGENT = "src/handiwork/guest_agent"


class GuestAgentHook(BuildHookInterface):
    """Runs guest/build.sh before a wheel, editable or not, is put together."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        if sys.platform != "linux":
            raise SystemExit("handiwork: the guest agent can be built on Linux only")
        root = Path(self.root)
        built = subprocess.run(
            [root / "guest/build.sh", "--output", root / AGENT],
            check=False,
            capture_output=True,
            text=True,
        )
        if built.returncode:
            raise SystemExit(f"handiwork: the guest agent was not built: {built.stderr.strip()}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{platform.machine()}"
        if version != "editable":
            build_data["force_include"][str(root / AGENT)] = "handiwork/guest_agent"
