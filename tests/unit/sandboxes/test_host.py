"""Children: what they get, how they end, what they say."""

import asyncio
import os
import socket

import pytest

from handiwork.model.errors import UnsupportedError
from handiwork.sandboxes.host import capture, launch


def script(tmp_path, text):
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


async def test_output_and_exit_code(tmp_path):
    assert await capture([script(tmp_path, "echo $1; exit 3"), "word"], 5) == (3, "word\n")


async def test_a_child_that_hangs_is_killed(tmp_path):
    code, _ = await capture([script(tmp_path, "exec sleep 60")], 0.05)
    assert code == 128 + 9


async def test_the_environment_is_empty(tmp_path):
    _, output = await capture(["/usr/bin/env"], 5)
    assert output == ""


async def test_only_named_descriptors_arrive(tmp_path):
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket():
        process = launch(
            [script(tmp_path, "ls -l /proc/self/fd 2>/dev/null | grep -c socket: >&2; exit 5")],
            theirs.fileno(),
        )
        assert await process.exited == 5
        assert process.error_line() == "1"


async def test_the_error_line_is_cut_and_printable(tmp_path):
    process = launch([script(tmp_path, r"printf '\033[31mSTEP: no\nmore' >&2; exit 125")], 2)
    assert await process.exited == 125
    assert process.error_line() == "?[31mSTEP: no"


async def test_the_error_line_can_be_read_before_the_end(tmp_path):
    process = launch([script(tmp_path, "echo why >&2; exec sleep 60")], 2)
    async with asyncio.timeout(5):
        while not process.error_line():  # noqa: ASYNC110  what it says is a pipe's
            await asyncio.sleep(0.01)
    process.kill()
    await process.exited
    assert process.error_line() == "why"


async def test_stop_kills_what_does_not_end(tmp_path, monkeypatch):
    monkeypatch.setattr("handiwork.sandboxes.host.STOP_SECONDS", 0.05)
    process = launch([script(tmp_path, "trap '' TERM; while :; do sleep 1; done")], 2)
    await asyncio.wait_for(process.stop(), 5)
    assert process.exited.result() == 128 + 9
    process.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


async def test_a_missing_program_is_told(tmp_path):
    with pytest.raises(UnsupportedError, match="cannot start"):
        launch([str(tmp_path / "none")], 2)
    with pytest.raises(UnsupportedError, match="cannot start"):
        await capture([str(tmp_path / "none")], 1)


async def test_descriptors_arrive_in_their_order_whatever_their_numbers(tmp_path):
    pairs = [socket.socketpair() for _ in range(4)]
    # The last one stands where the second is to go, were it not moved out of the way.
    wanted = [pairs[0][1], pairs[1][1], pairs[2][1], pairs[3][1]]
    wanted.sort(key=lambda one: -one.fileno())
    process = launch(
        [script(tmp_path, "for n in 3 4 5 6; do echo $n >&$n; done")],
        *(one.fileno() for one in wanted),
    )
    assert await process.exited == 0
    heard = {theirs: ours.recv(10) for ours, theirs in pairs}
    assert [heard[one] for one in wanted] == [b"3\n", b"4\n", b"5\n", b"6\n"]
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
