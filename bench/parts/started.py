"""Programs that a benchmark starts beside itself, ended when their block does."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

END_SECONDS = 20.0


def start(argv: Sequence[str], *, keep: Sequence[int] = ()) -> "subprocess.Popen[bytes]":
    """Start a program that reads nothing and keeps some descriptors of ours."""
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=keep)


@contextlib.contextmanager
def python(*argv: str | Path, given: str = "", keep: Sequence[int] = ()) -> Iterator[str]:
    """Run Python until the block ends, which it sees by its standard input.

    It is given some text there at once; the first line that it prints is yielded.
    """
    child = subprocess.Popen(
        [sys.executable, *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=keep,
    )
    try:
        child.stdin.write(given)
        child.stdin.flush()
        line = child.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"{argv} ended before it served")
        threading.Thread(target=child.stdout.read, daemon=True).start()
        yield line
    finally:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        try:
            child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
