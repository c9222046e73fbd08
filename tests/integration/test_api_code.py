"""Code in a real isolate of a real control plane, by the client."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane_process import ControlPlane
from handiwork import Handiwork
from handiwork.client.sandboxes import Sandbox
from handiwork.model.code import CodeLimits, Language, LimitKind, LogLine
from handiwork.model.errors import UnsupportedError


@pytest.fixture
async def hw(driven_plane: ControlPlane) -> AsyncIterator[Handiwork]:
    async with Handiwork(socket=driven_plane.socket) as hw:
        yield hw


@pytest.fixture
async def box(hw: Handiwork) -> AsyncIterator[Sandbox]:
    async with await hw.sandboxes.create(tier="isolate", env={"GREETING": "hello"}) as box:
        yield box


async def test_both_languages_give_a_value(box: Sandbox) -> None:
    assert (await box.run_code("[1, 'ü', null].map((x) => x)")).value == [1, "ü", None]
    done = await box.run_code("import os\n{'said': os.environ['GREETING']}", "python")
    assert (done.error, done.value) == (None, {"said": "hello"})


async def test_what_it_logs_comes_as_it_is_logged(box: Sandbox) -> None:
    heard: list[LogLine] = []
    code = "for (let i = 0; i < 3; i++) console.log('line', i); 'end'"
    done = await box.run_code(code, on_log=heard.append)
    assert [line.text for line in heard] == ["line 0", "line 1", "line 2"]
    assert (done.value, done.logs) == ("end", tuple(heard))


async def test_a_limit_is_named_and_the_next_run_works(box: Sandbox) -> None:
    done = await box.run_code("for (;;) {}", limits=CodeLimits(cpu_ms=50))
    assert done.error is not None
    assert done.error.limit is LimitKind.CPU
    assert (await box.run_code("1")).value == 1


async def test_files_are_those_of_every_sandbox(box: Sandbox, hw: Handiwork, tmp_path) -> None:
    await box.files.write("/workspace/in/a.txt", b"one\n")
    await box.run_code(
        "await workspace.write('out/b.txt', (await workspace.read('in/a.txt')) + 'two')"
    )
    assert await box.files.read("/workspace/out/b.txt") == b"one\ntwo"
    done = await box.files.download_dir("/workspace", tmp_path / "copy")
    assert (tmp_path / "copy/out/b.txt").read_bytes() == b"one\ntwo"
    assert done.files == 2
    await box.files.get_tree("/workspace", tmp_path / "tree.tar")
    async with await hw.sandboxes.create(tier="isolate") as other:
        await other.files.put_tree("/workspace", tmp_path / "tree.tar")
        assert await other.files.read("/workspace/in/a.txt") == b"one\n"


async def test_files_outlive_sleep_and_are_forked_and_snapshot(box: Sandbox) -> None:
    await box.run_code("globalThis.kept = 1; await workspace.write('a', 'first')")
    taken = await box.snapshot()
    await box.sleep()
    await box.wake()
    assert (await box.run_code("[typeof kept, await workspace.read('a')]")).value == [
        "undefined",
        "first",
    ]
    await box.run_code("await workspace.write('a', 'second'); await workspace.write('b', 'x')")
    (fork,) = await box.fork()
    async with fork:
        assert (await fork.run_code("await workspace.read('a')")).value == "second"
        await fork.files.write("/workspace/a", b"third")
    await box.snapshots.rollback(taken.number)
    await box.wake()
    assert await box.files.read("/workspace/a") == b"first"
    assert [one.name for one in await box.files.list("/workspace")] == ["a"]


async def test_commands_are_refused_by_name_and_code_elsewhere(box: Sandbox, hw: Handiwork) -> None:
    with pytest.raises(UnsupportedError, match="the isolate tier has no commands"):
        await box.exec(["true"])
    async with await hw.sandboxes.create() as linux:
        with pytest.raises(UnsupportedError, match="this tier runs commands, not code"):
            await linux.run_code("1")


GUIDE = (Path(__file__).parents[2] / "docs/guides/code.md").read_text()


SUM = {"exit_code": 0, "stdout": "3\n", "stderr": ""}


@pytest.mark.parametrize(
    ("fence", "language", "value"),
    [("js", "javascript", [1, 2, 3]), ("python", "python", [1, 2, 3]), ("bash", "bash", SUM)],
)
async def test_what_the_guide_shows_runs(
    box: Sandbox, fence: str, language: Language, value: Any
) -> None:
    shown = re.findall(rf"^```{fence}\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)[-1]
    done = await box.run_code(shown, language)
    assert (done.error, done.value) == (None, value)


async def test_scopes_are_apart_and_begin_anew(box: Sandbox) -> None:
    await box.run_code("kept = 1", "python", scope="a")
    assert (await box.run_code("'kept' in globals()", "python", scope="b")).value is False
    assert (await box.run_code("kept", "python", scope="a")).value == 1
    done = await box.run_code("'kept' in globals()", "python", scope="a", restart=True)
    assert done.value is False


def test_the_guide_tells_the_limits_that_hold() -> None:
    for name in ("cpu_ms", "wall_seconds", "output_kib", "log_kib", "frames_per_second"):
        assert f"`{name}` | {getattr(CodeLimits(), name):,g} |".replace(",g", "") in GUIDE
