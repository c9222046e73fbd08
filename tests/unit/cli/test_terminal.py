"""`handiwork sandbox shell`: what is typed goes in, what is shown comes out, its code is ours."""

import asyncio
import contextlib
import os
import pty
import signal
import termios

from handiwork.cli import terminal


def test_its_code_and_output_are_ours(api, handiwork, typed) -> None:
    sandbox_id = handiwork("sandbox", "create").out.strip()
    typed(b"")
    done = handiwork("sandbox", "shell", sandbox_id, "echo", "one", "-n")
    assert (done.code, done.out) == (0, "one-ndone")
    assert handiwork("sandbox", "shell", sandbox_id, "false").code == 1
    assert handiwork("sandbox", "shell", "sbx_none").code == 2


def test_a_pipe_is_typed_to_its_end(api, handiwork, typed) -> None:
    sandbox_id = handiwork("sandbox", "create").out.strip()
    typed(b"ls\n")
    sandbox = api.served.sandboxes.live[sandbox_id]
    done = handiwork("sandbox", "shell", sandbox_id, "type")
    assert (done.code, done.out) == (0, "ls\n\x04")
    assert sandbox.requests[-1].argv == ("type",)


class Typed:
    """A terminal of a sandbox that keeps the first piece that is typed."""

    def __init__(self) -> None:
        self.data = b""

    async def write(self, data: bytes) -> None:
        self.data = data
        raise asyncio.CancelledError


async def test_our_terminal_is_raw_meanwhile_and_as_before_after(monkeypatch) -> None:
    """Not raw, the first key would be a signal and the second the end of our own input."""
    keys, ours = pty.openpty()
    before, typed = termios.tcgetattr(ours), Typed()
    with os.fdopen(ours, "rb", buffering=0) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with terminal._raw(ours), contextlib.suppress(asyncio.CancelledError):
            os.write(keys, b"\x03\x04")
            await terminal._type(typed)
        assert typed.data == b"\x03\x04"
        assert termios.tcgetattr(ours) == before
    os.close(keys)


async def test_a_new_size_of_ours_is_told(monkeypatch) -> None:
    told = asyncio.Event()

    class Resized:
        async def resize(self, columns: int, rows: int) -> None:
            assert (columns, rows) == (90, 1000)
            told.set()

    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setenv("LINES", "5000")
    following = asyncio.create_task(terminal._follow_size(Resized()))
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGWINCH)
    async with asyncio.timeout(20):
        await told.wait()
    following.cancel()
