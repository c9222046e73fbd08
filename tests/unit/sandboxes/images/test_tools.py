"""Programs of the host: heard, bounded, and gone with all they started."""

import asyncio
import os
from pathlib import Path

import pytest

from handiwork.model.errors import UnsupportedError
from handiwork.sandboxes.images.tools import run_tool


async def test_lines_are_told_and_the_last_ones_explain_a_failure(tmp_path):
    told = []
    await run_tool(["sh", "-c", "echo one; printf 'two\\rthree' >&2"], tmp_path, told=told.append)
    assert told == ["one", "two"]
    with pytest.raises(UnsupportedError, match=r"sh failed with 3: a; \?\[31mb"):
        await run_tool(["sh", "-c", r"echo a; printf '\033[31mb'; exit 3"], tmp_path)


async def test_a_long_line_hides_no_other(tmp_path):
    script = "echo the cause; head -c 5000 /dev/zero | tr '\\0' x; echo; echo done; exit 4"
    with pytest.raises(UnsupportedError, match=r"failed with 4: the cause; x{200}; done$"):
        await run_tool(["sh", "-c", script], tmp_path)


async def test_it_works_in_its_directory_with_a_bare_environment(tmp_path):
    file = os.open(tmp_path / "out", os.O_CREAT | os.O_WRONLY, 0o600)
    await run_tool(["sh", "-c", "pwd; echo $HOME $TMPDIR $SHELL"], tmp_path, stdout=file)
    os.close(file)
    assert (tmp_path / "out").read_text() == f"{tmp_path}\n{tmp_path} {tmp_path}\n"


async def test_a_program_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UnsupportedError, match="no-such-tool is not on this host"):
        await run_tool(["no-such-tool"], tmp_path)


async def test_much_output_takes_no_room(tmp_path):
    told = []
    script = "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end"
    await run_tool(["sh", "-c", script], tmp_path, told=told.append)
    assert told[-1] == "end"
    assert max(map(len, told)) <= 4096


@pytest.mark.root
async def test_cancelling_ends_all_that_it_started(tmp_path):
    mark = f"{os.getpid()}.4242"
    script = f"(setsid sleep {mark} &) ; mount -t tmpfs none {tmp_path}; echo ready; sleep {mark}"
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(
            run_tool(["sh", "-c", script], tmp_path, told=lambda _line: ready.set())
        )
        await asyncio.wait_for(ready.wait(), 20)
        assert mark in living()
        assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
        task.cancel()
    for _ in range(200):
        if mark not in living():
            break
        await asyncio.sleep(0.05)
    assert mark not in living()


def living():
    lines = []
    for entry in Path("/proc").iterdir():
        try:
            lines.append((entry / "cmdline").read_text() if entry.name.isdigit() else "")
        except OSError:
            continue
    return "\n".join(lines)
