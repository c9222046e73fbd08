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
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from handiwork.config import LogSettings
from handiwork.egress.hooks.process import HooksSettings
from handiwork.egress.listeners import Listener
from handiwork.egress.registry import EgressRegistry
from handiwork.model.errors import ConfigError, HandiworkError
from handiwork.model.language_model import KeyedModel
from handiwork.observe import log

READY_SECONDS = 20.0
STOP_SECONDS = 5.0
STEADY_SECONDS = 30.0
"""A program that served so long is restarted at once; one that ends sooner, ever later."""
DEFAULT_LOG = LogSettings()
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

    def __init__(
        self, registry: EgressRegistry, own: OwnId | None, told: LogSettings = DEFAULT_LOG
    ) -> None:
        self._registry = registry
        self._arguments = _arguments(own, told)
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
            arguments=("--control", str(number), *self._arguments),
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

    def __init__(
        self,
        bootstrap: dict[str, Any],
        descriptors: tuple[int, ...],
        own: OwnId | None,
        told: LogSettings = DEFAULT_LOG,
    ) -> None:
        """`descriptors` are those that the bootstrap names: its listener and its way out."""
        self._bootstrap = bootstrap
        self._descriptors = descriptors
        self._arguments = _arguments(own, told)
        self._process: asyncio.subprocess.Process | None = None
        self._launched: list[Any] = []

    def tell_models(self, models: Sequence[KeyedModel]) -> None:
        """Have it ask these models and no others: at once, and after every later start."""
        self._bootstrap = {**self._bootstrap, "models": msgspec.to_builtins(models)}
        if self._process is not None:
            self._write_models(self._process)

    def _write_models(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin and not process.stdin.is_closing():
            line = msgspec.json.encode({"models": self._bootstrap["models"]})
            process.stdin.write(line + b"\n")

    def launch(self) -> Launch:
        """Its keys go over standard input, never by argument or environment."""
        self._launched = self._bootstrap.get("models", [])
        return Launch(
            module="handiwork.brains.local",
            arguments=self._arguments,
            descriptors=self._descriptors,
            stdin_line=msgspec.json.encode(self._bootstrap),
        )

    async def up(self, process: asyncio.subprocess.Process) -> None:
        """Wait for its line that says ready."""
        line = await process.stdout.readline() if process.stdout else b""
        if b'"ready"' not in line:
            raise OSError("it ended before it served; its log line says why")
        self._process = process
        if self._bootstrap.get("models", []) != self._launched:
            self._write_models(process)

    def down(self) -> None:
        """Nothing holds on to it: clients see a refused connection."""
        self._process = None


class HooksPython:
    """The operator's hooks, on a listener that turns callers away while they are not served."""

    name = "hooks"

    def __init__(
        self,
        settings: HooksSettings,
        listener: Listener,
        own: OwnId | None,
        told: LogSettings = DEFAULT_LOG,
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._arguments = _arguments(own, told)

    def launch(self) -> Launch:
        """It gets its listener and, where it has one, its way out."""
        numbers = (self._settings.listen_fd, self._settings.exit_fd)
        return Launch(
            module="handiwork.egress.hooks",
            arguments=self._arguments,
            descriptors=tuple(number for number in numbers if number is not None),
            stdin_line=msgspec.json.encode(self._settings),
        )

    async def up(self, process: asyncio.subprocess.Process) -> None:
        """Wait for its line that says ready."""
        line = await process.stdout.readline() if process.stdout else b""
        if b'"ready"' not in line:
            raise OSError("it ended before it served; its log line says why")
        self._listener.leave_to_proxy()

    def down(self) -> None:
        """Whoever calls is turned away at once, and so denied."""
        self._listener.refuse()


@asynccontextmanager
async def kept(supervisor: Supervisor, programs: Sequence[Program]) -> AsyncIterator[None]:
    """Keep the programs while the body runs; the body starts when all serve."""
    events = [asyncio.Event() for _ in programs]
    keeping = [
        supervisor.keep(program, started) for program, started in zip(programs, events, strict=True)
    ]
    async with tasks(keeping) as ended:
        for started in events:
            await _either(started, ended)
        yield


async def _either(started: asyncio.Event, ended: asyncio.Event) -> None:
    """Wait for a start; an end that comes first is told by the task group."""
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(event.wait()) for event in (started, ended)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


@asynccontextmanager
async def tasks(bodies: Sequence[Coroutine[Any, Any, None]]) -> AsyncIterator[asyncio.Event]:
    """Own the bodies while ours runs; yields an event that is set when one of them failed."""
    failed = asyncio.Event()

    async def owned(body: Coroutine[Any, Any, None]) -> None:
        try:
            await body
        except Exception:
            failed.set()
            raise

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(owned(body)) for body in bodies]
        try:
            yield failed
        finally:
            for task in tasks:
                task.cancel()


def _arguments(own: OwnId | None, told: LogSettings) -> tuple[str, ...]:
    log_as = ("--log-level", told.level, "--log-format", told.format)
    return ("--user", str(own.user), "--home", str(own.home), *log_as) if own else log_as


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
