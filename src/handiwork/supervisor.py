"""Starts, restarts and stops our own processes; used by `app.py` only.

A program says how it is launched and what happens when it is up and when it is down; the
supervisor owns the process. Programs get a bare environment and only the descriptors named; as
root they drop to a host id of their own (`process.become`). Every program of ours ends by itself
when its pipe or socket to us closes, so that none outlives a killed control plane.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from handiwork.egress.registry import EgressRegistry
from handiwork.model.errors import ConfigError, HandiworkError
from handiwork.observe import log

READY_SECONDS = 20.0
STOP_SECONDS = 5.0
STEADY_SECONDS = 30.0
"""A program that served so long is restarted at once; one that ends sooner, ever later."""
BACKOFF_SECONDS = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Launch:
    """How to start one process: module of ours, arguments, descriptors, first line of stdin."""

    module: str
    arguments: tuple[str, ...] = ()
    descriptors: tuple[int, ...] = ()
    stdin_line: bytes = b""
    after_start: Callable[[], None] = field(default=lambda: None)


@dataclass(frozen=True)
class OwnId:
    """As root: the host id a program drops to, and its own directory."""

    user: int
    home: Path


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
            since = asyncio.get_running_loop().time()
            try:
                await self._run_once(program, started)
                steady = asyncio.get_running_loop().time() - since > STEADY_SECONDS
                failures = 0 if steady else failures
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


class EgressProxy:
    """The data plane: it gets one end of a fresh control socket at each start."""

    name = "egress proxy"

    def __init__(self, registry: EgressRegistry, own: OwnId | None) -> None:
        self._registry = registry
        self._own = own
        self._process: asyncio.subprocess.Process | None = None

    def launch(self) -> Launch:
        """Make the control socket; our end goes to the registry once the process has the other."""
        ours, theirs = socket.socketpair()

        def after_start() -> None:
            theirs.close()
            self._registry.attach(ours, kill=self._kill)

        number = theirs.fileno()
        return Launch(
            module="handiwork.egress",
            arguments=("--control", str(number), *_arguments(self._own)),
            descriptors=(number,),
            after_start=after_start,
        )

    async def up(self, process: asyncio.subprocess.Process) -> None:
        """Return when it has answered the registry."""
        self._process = process
        while not self._registry.attached:
            if process.returncode is not None:
                raise OSError(f"it ended with code {process.returncode}; its log line says why")
            await asyncio.sleep(0.005)

    def down(self) -> None:
        """Refuse everything until the next one is attached."""
        self._process = None
        self._registry.detach()

    def _kill(self) -> None:
        """End a proxy that does not answer; whoever waits for it then starts the next."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()


class LocalBrain:
    """The CMA-compatible server, on a listener that we bound."""

    name = "local brain"

    def __init__(self, bootstrap: dict[str, Any], listener: int, own: OwnId | None) -> None:
        self._bootstrap = bootstrap
        self._listener = listener
        self._own = own

    def launch(self) -> Launch:
        """Its keys go over standard input, never by argument or environment."""
        return Launch(
            module="handiwork.brains.local",
            arguments=_arguments(self._own),
            descriptors=(self._listener,),
            stdin_line=msgspec.json.encode(self._bootstrap),
        )

    async def up(self, process: asyncio.subprocess.Process) -> None:
        """Wait for its line that says ready."""
        line = await process.stdout.readline() if process.stdout else b""
        if b'"ready"' not in line:
            raise OSError("it ended before it served; its log line says why")

    def down(self) -> None:
        """Nothing holds on to it: clients see a refused connection."""


def _arguments(own: OwnId | None) -> tuple[str, ...]:
    return ("--user", str(own.user), "--home", str(own.home)) if own else ()


async def _spawn(launch: Launch) -> asyncio.subprocess.Process:
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
        "PYTHONUNBUFFERED": "1",
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
