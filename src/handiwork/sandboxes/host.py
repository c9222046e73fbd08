"""Processes and control groups of sandboxes on this host; the only starter of processes here.

A launcher dies with the thread that started it (PR_SET_PDEATHSIG counts threads), so call `launch`
from the thread of the event loop.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

from handiwork.model.errors import UnsupportedError

CHANNEL_FD = 3
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
        """Return the first line it wrote to its error stream, cut and printable; read at its end."""
        line = self._error.decode("utf-8", "replace").strip().partition("\n")[0]
        return "".join(c if c.isprintable() else "?" for c in line[:300])

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        _, status = os.waitpid(self.pid, 0)
        os.close(self._pidfd)
        self._error = _read_available(self._stderr)
        os.close(self._stderr)
        code = os.waitstatus_to_exitcode(status)
        self.exited.set_result(code if code >= 0 else 128 - code)


def _read_available(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, ERROR_BYTES)
    except BlockingIOError:
        return b""


def _spawn(argv: Sequence[str], channel: int | None, stdout: int | None) -> HostProcess:
    """Start a program with an empty environment and no descriptor but those named here."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, writer, 2),
    ]
    if stdout is None:
        actions.append((os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0))
    else:
        actions.append((os.POSIX_SPAWN_DUP2, stdout, 1))
    if channel is not None:
        actions.append((os.POSIX_SPAWN_DUP2, channel, CHANNEL_FD))
    try:
        pid = os.posix_spawn(
            argv[0],
            list(argv),
            {},
            file_actions=actions,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
        )
    except OSError as error:
        os.close(reader)
        raise UnsupportedError(
            f"cannot start {argv[0]}: {error.strerror}; run guest/build.sh"
        ) from error
    finally:
        os.close(writer)
    return HostProcess(pid, reader)


def launch(argv: Sequence[str], channel: int) -> HostProcess:
    """Start a launcher; `channel` becomes its descriptor 3. UnsupportedError when it cannot start."""
    return _spawn(argv, channel, None)


async def capture(argv: Sequence[str], seconds: float) -> tuple[int, str]:
    """Run a small program of ours to its end: (exit code, at most 64 KiB of its output)."""
    reader, writer = os.pipe()
    try:
        try:
            process = _spawn(argv, None, writer)
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
