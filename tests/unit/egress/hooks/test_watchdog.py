"""A process whose event loop stands still ends; one whose turns does not."""

import asyncio
import signal
import sys

import pytest

PROGRAM = """
import asyncio, sys, time, re
from handiwork.egress.hooks.watchdog import Watchdog

async def main():
    watchdog = Watchdog(0.6)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(watchdog.run())
        await asyncio.sleep(1.2)
        print("turned", flush=True)
        if sys.argv[1] == "loop":
            while True: pass
        if sys.argv[1] == "lock":  # in C, and never gives the interpreter's lock up
            re.match("(a*)*b", "a" * 64)
        running.cancel()
    time.sleep(0.8)
    print("rested", flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("loop", -signal.SIGALRM, b"turned\n"),
        ("lock", -signal.SIGALRM, b"turned\n"),
        ("none", 0, b"turned\nrested\n"),
    ],
)
async def test_it_ends_what_stands_still(how: str, code: int, said: bytes) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, how, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(20):
        out, _ = await process.communicate()
    assert (process.returncode, out) == (code, said)
