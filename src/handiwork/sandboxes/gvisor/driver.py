"""gVisor inside the launcher's namespaces: its program, its platform, its room in the control group."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from handiwork.model.errors import SandboxUnavailableError, UnsupportedError
from handiwork.model.sandbox import Limits, SandboxSpec
from handiwork.sandboxes.gvisor.config import FLAGS, PLATFORMS, oci_config, runsc_flags
from handiwork.sandboxes.host import capture

CONFIG = "runsc.json"
PLACES = ("/usr/local/bin/runsc", "/usr/bin/runsc", "/usr/local/sbin/runsc", "/opt/gvisor/runsc")
FLAG_SECONDS = 20.0
KERNEL_MIB = 192
"""Memory of gVisor itself beyond what its sandbox may use: kernel, file server, starter."""

KERNEL_TASKS = 256
"""Tasks of gVisor itself. It ends, with all inside, when the host refuses it one."""
EACH_TASKS, EACH_PROCESSOR_TASKS = 10, 2
"""Room among the host's tasks for each process of a guest: with two processors 11 were counted (systrap)."""


def find_runsc(configured: str, places: tuple[str, ...] = PLACES) -> Path | None:
    """Return gVisor's program: the one that is configured, else the first of the usual places."""
    found = (Path(place) for place in ([configured] if configured else places))
    return next((place for place in found if place.is_file()), None)


class Gvisor:
    """How sandboxes of this tier are run; `platform` "" takes the first that works here."""

    tier = "gvisor"

    def __init__(self, runsc: Path, platform: str = "", processors: int | None = None) -> None:
        """`processors`: how many the host has, else as many as are there."""
        processors = processors or os.cpu_count() or 1
        self._each_tasks = EACH_TASKS + EACH_PROCESSOR_TASKS * processors
        self.runsc = runsc
        self._candidates = (platform,) if platform else PLATFORMS
        self._flags: list[str] = []
        self._proving = asyncio.Lock()
        self.platform = ""

    async def ready(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Find the flags that this runsc knows and the platform that works, by doing; once.

        `attempt` makes a sandbox and ends it. UnsupportedError tells why no platform works.
        """
        async with self._proving:
            if self.platform:
                return
            known = [name for name, value in FLAGS if await self._knows(name, value)]
            reasons = []
            for platform in self._candidates:
                self._flags = runsc_flags(platform, known)
                try:
                    await attempt()
                except SandboxUnavailableError as error:
                    reasons.append(f"{platform}: {error}")
                else:
                    self.platform = platform
                    return
            raise UnsupportedError(f"{self.runsc} runs no sandbox here: {' / '.join(reasons)}")

    def launch_options(
        self, spec: SandboxSpec, state: Path, *, ranged: bool, ahead: bool
    ) -> list[str]:
        """Write the OCI configuration beside the state and return what names it."""
        config = state / CONFIG
        config.write_bytes(oci_config(spec, ranged=ranged, ahead=ahead))
        config.chmod(0o644)
        options = ["--runsc", str(self.runsc), "--runsc-config", str(config)]
        for flag in [*self._flags, *([] if ranged else ["--rootless=true"])]:
            options += ["--runsc-flag", flag]
        return options

    def around(self, limits: Limits) -> Limits:
        """Return the limits with room for gVisor itself."""
        return msgspec.structs.replace(
            limits,
            memory_mib=limits.memory_mib + KERNEL_MIB,
            pids=self._each_tasks * limits.pids + KERNEL_TASKS,
        )

    def protections(self) -> Mapping[str, bool]:
        """Return what is more here: no call of a guest reaches the host's kernel, whose clocks it is not told."""
        return {"own_kernel": True, "own_clocks": True}

    async def _knows(self, name: str, value: str) -> bool:
        argv = [str(self.runsc), f"--{name}={value}", "--version"]
        code, _ = await capture(argv, FLAG_SECONDS)
        return code == 0
