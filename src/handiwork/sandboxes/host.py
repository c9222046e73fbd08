"""Processes and control groups of sandboxes on this host; the only starter of processes here.

A launcher dies with the thread that started it (PR_SET_PDEATHSIG counts threads), so call `launch`
from the thread of the event loop.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from handiwork.model.errors import UnsupportedError
from handiwork.process import is_root

CHANNEL_FD, IMAGE_FD = 3, 4
TOOL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TIE = ("/usr/bin/setpriv", "--pdeathsig", "KILL", "--")
_OWN_NAMESPACES = (
    *("/usr/bin/unshare", "--pid", "--fork", "--kill-child"),
    *("--mount", "--mount-proc"),
)
STOP_SECONDS = 2.0
ERROR_BYTES = 4096
OUTPUT_BYTES = 65_536


class HostProcess:
    """A child of ours, watched by its pidfd; `exited` gives its exit code (128+n: signal n)."""

    def __init__(self, pid: int, stderr: int) -> None:
        self.pid = pid
        self._stderr = stderr
        self._loop = asyncio.get_running_loop()
        self._error = b""
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = os.pidfd_open(pid)
        self._loop.add_reader(self._pidfd, self._reap)

    async def stop(self) -> None:
        """Wait for its end, which the caller caused; end it when that takes over 2 s."""
        for harder in (self.terminate, self.kill):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await asyncio.shield(self.exited)
            harder()
        await asyncio.shield(self.exited)

    def terminate(self) -> None:
        """Ask a launcher to end its sandbox and, when all of it is gone, itself."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it. No-op when it is gone."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if not self.exited.done():
            signal.pidfd_send_signal(self._pidfd, number)

    def error_line(self) -> str:
        """Return the first line it wrote to its error stream, cut and printable; "" until it did."""
        if not self.exited.done() and len(self._error) < ERROR_BYTES:
            self._error += _read_available(self._stderr)
        line = self._error.decode("utf-8", "replace").strip().partition("\n")[0]
        return "".join(c if c.isprintable() else "?" for c in line[:300])

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        _, status = os.waitpid(self.pid, 0)
        os.close(self._pidfd)
        self._error += _read_available(self._stderr)
        os.close(self._stderr)
        code = os.waitstatus_to_exitcode(status)
        self.exited.set_result(code if code >= 0 else 128 - code)


def _read_available(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, ERROR_BYTES)
    except BlockingIOError:
        return b""


def _spawn(
    argv: Sequence[str],
    descriptors: Mapping[int, int],
    *,
    env: Mapping[str, str] | None = None,
) -> HostProcess:
    """Start a program with this environment (empty) and no descriptor but those named here."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, writer, 2),
        *((os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in descriptors.items()),
    ]
    try:
        pid = os.posix_spawn(
            argv[0],
            list(argv),
            dict(env or {}),
            file_actions=actions,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
        )
    except OSError as error:
        os.close(reader)
        raise UnsupportedError(
            f"cannot start {argv[0]}: {error.strerror}; `./run demo` builds it"
        ) from error
    finally:
        os.close(writer)
    return HostProcess(pid, reader)


def launch(argv: Sequence[str], channel: int, *more: int) -> HostProcess:
    """Start a launcher; `channel` becomes its descriptor 3, what follows 4 and so on.

    UnsupportedError when it cannot start.
    """
    # Out of the way of the numbers that they get: a later one may stand where an earlier one goes.
    first = CHANNEL_FD + 1 + len(more)
    apart = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, first) for one in (channel, *more)]
    try:
        return _spawn(argv, dict(enumerate(apart, CHANNEL_FD)))
    finally:
        for one in apart:
            os.close(one)


def start_tool(
    argv: Sequence[str], directory: Path, stdout: int | None, told: int, *, network: bool
) -> HostProcess:
    """Start a program of the host's that works on images; UnsupportedError when it is not there.

    Whatever it starts or mounts is gone when it ends, and when we do: as root it has process ids and
    mounts of its own. `directory` is where it works, its home, and where it puts temporary files.
    Its errors, and its output where `stdout` is None, go to `told`. Without `network` root's has none.
    """
    found = shutil.which(argv[0], path=TOOL_PATH)
    if found is None:
        raise UnsupportedError(f"{argv[0]} is not on this host: install the package that has it")
    own = (*_OWN_NAMESPACES, *(() if network else ("--net",)), "--") if is_root() else ()
    whole = [*_TIE, *own, "/usr/bin/env", "-C", str(directory)]
    env = {"PATH": TOOL_PATH, "HOME": str(directory), "TMPDIR": str(directory), "LANG": "C.UTF-8"}
    descriptors = {1: told if stdout is None else stdout, 2: told}
    return _spawn([*whole, found, *argv[1:]], descriptors, env=env)


async def capture(argv: Sequence[str], seconds: float) -> tuple[int, str]:
    """Run a small program of ours to its end: (exit code, at most 64 KiB of its output)."""
    reader, writer = os.pipe()
    try:
        try:
            process = _spawn(argv, {1: writer})
        finally:
            os.close(writer)
        try:
            async with asyncio.timeout(seconds):
                code = await asyncio.shield(process.exited)
        except TimeoutError:
            process.kill()
            code = await asyncio.shield(process.exited)
        os.set_blocking(reader, False)
        try:
            output = os.read(reader, OUTPUT_BYTES)
        except BlockingIOError:
            output = b""
    finally:
        os.close(reader)
    return code, output.decode("utf-8", "replace")
