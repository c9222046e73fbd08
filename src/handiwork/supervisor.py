"""Starts, restarts and stops our own processes; used by `app.py` only.

A program says how it is launched and what happens when it is up and when it is down; the
supervisor owns the process. Programs get a bare environment, only the descriptors named, and a
host id of their own when we are root. Every program of ours ends by itself when its pipe or
socket to us closes, so that none outlives a killed control plane.
"""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from handiwork.model.errors import ConfigError, HandiworkError
from handiwork.observe import log

READY_SECONDS = 20.0
STOP_SECONDS = 5.0
BACKOFF_SECONDS = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)

_PR_CAPBSET_DROP = 24
_PR_SET_DUMPABLE = 4
_LAST_CAPABILITY = 63
_KEPT_CAPABILITIES = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 21, 24, 27, 31})
"""chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, sys_admin
(mounts, id maps), sys_resource (limits), mknod, setfcap (the launcher's maps of inside root)."""


@dataclass(frozen=True)
class Launch:
    """How to start one process: module of ours, arguments, descriptors, host id, first line of stdin."""

    module: str
    arguments: tuple[str, ...] = ()
    descriptors: tuple[int, ...] = ()
    user: int | None = None
    stdin_line: bytes = b""
    after_start: Callable[[], None] = field(default=lambda: None)


class Program(Protocol):
    """One process of ours that must always run."""

    @property
    def name(self) -> str:
        """For the log."""
        ...

    def launch(self) -> Launch:
        """Return how to start it now; called anew for each start."""
        ...

    async def up(self, process: asyncio.subprocess.Process) -> None:
        """Return when it serves; raise when it does not."""
        ...

    def down(self) -> None:
        """It ended; called once for each start."""
        ...


class Supervisor:
    """Keeps programs running until it is cancelled."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._sleep = sleep
        self._log = log.get("supervisor")
        self.pids: dict[str, int] = {}
        """Live programs by name."""

    async def keep(self, program: Program, started: asyncio.Event) -> None:
        """Start the program, set `started` when it first serves, restart it whenever it ends.

        ConfigError when the first start fails; later ones are tried for ever, 5 s apart at most.
        """
        failures = 0
        while True:
            try:
                await self._run_once(program, started)
                failures = 0 if started.is_set() else failures
            except (OSError, TimeoutError, HandiworkError) as error:
                if not started.is_set():
                    raise ConfigError(f"{program.name} did not start: {error}") from error
                self._log.error("start failed", program=program.name, error=str(error))
            delay = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
            failures += 1
            self._log.warning("restarting", program=program.name, delay_seconds=delay)
            await self._sleep(delay)

    async def _run_once(self, program: Program, started: asyncio.Event) -> None:
        launch = program.launch()
        process = await _spawn(launch)
        try:
            async with asyncio.timeout(READY_SECONDS):
                await program.up(process)
            self.pids[program.name] = process.pid
            self._log.info("up", program=program.name, pid=process.pid)
            started.set()
            code = await process.wait()
            self._log.error("ended", program=program.name, pid=process.pid, code=code)
        finally:
            self.pids.pop(program.name, None)
            program.down()
            await asyncio.shield(_stop(process))


async def _spawn(launch: Launch) -> asyncio.subprocess.Process:
    ids: dict[str, object] = {}
    if launch.user is not None:
        ids = {"user": launch.user, "group": launch.user, "extra_groups": []}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        launch.module,
        *launch.arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        pass_fds=launch.descriptors,
        env=_bare_environment(),
        cwd="/",
        start_new_session=True,
        **ids,  # type: ignore[arg-type]  # user, group and extra_groups are Popen's own names
    )
    launch.after_start()
    if launch.stdin_line and process.stdin:
        process.stdin.write(launch.stdin_line + b"\n")
        with suppress(ConnectionError):
            await process.stdin.drain()
    return process


def _bare_environment() -> dict[str, str]:
    """Nothing of ours but the path of this very package, so that children run the same code."""
    package = Path(__file__).resolve().parent.parent
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(package),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        if process.stdin:
            process.stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def harden() -> None:
    """Make this process unreadable to others of its id, and as root cut what it can ever become.

    The bounding set keeps what id maps, mounts and cgroups need; see SECURITY.md for what a
    compromise of the control plane would still mean.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if os.geteuid() == 0:
        for capability in range(_LAST_CAPABILITY + 1):
            if capability not in _KEPT_CAPABILITIES:
                libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
