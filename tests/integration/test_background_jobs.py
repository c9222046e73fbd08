"""Background jobs in a real sandbox: what ends them, and what does not."""

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from handiwork.config import ToolSettings
from handiwork.model.sandbox import SandboxSpec
from handiwork.sandboxes.namespace import NamespaceDriver
from handiwork.tools.background import background
from tool_world import ToolWorld, sandbox_of, text

JOB = re.compile(r"(job_[0-9a-f]{8}), pid (\d+)")
GUIDE = Path(__file__).parents[2] / "docs/guides/tool.md"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
async def world(data_dir: Path):
    async with sandbox_of(data_dir) as sandbox:
        yield ToolWorld(sandbox, ToolSettings(default_timeout_seconds=20, background_jobs=3))


async def job(world: ToolWorld, **given: object) -> str:
    return text(await world.call("background", given, custom=True))


async def start(world: ToolWorld, command: str) -> tuple[str, str]:
    """Start a job; return its id and its pid inside."""
    shown, failed = await world.bash(f"# background\n{command}")
    assert not failed, shown
    found = JOB.search(shown)
    assert found
    return found[1], found[2]


async def running(world: ToolWorld, pattern: str, count: int) -> bool:
    """Wait until so many processes run; False when that does not come true."""
    look = (
        f"for i in {{1..100}}; do [ $(pgrep -cf '^{pattern}') = {count} ] && break; sleep .05; done"
    )
    return not (await world.bash(f"{look}; [ $(pgrep -cf '^{pattern}') = {count} ]"))[1]


async def test_a_job_survives_all_but_its_sandbox(world: ToolWorld) -> None:
    first, _ = await start(world, "setsid sleep 91 & sleep 91")
    await world.told("bash", restart=True)
    await world.bash("exit 3")
    await world.bash("sleep 60", timeout_ms=200)
    assert await running(world, "sleep 91", 2)
    assert (await job(world, action="list")).startswith(f"{first}: running")


@pytest.mark.parametrize("how", ["tool", "group"])
async def test_a_job_is_killed_with_all_it_started(world: ToolWorld, how: str) -> None:
    one, pid = await start(world, "sh -c 'sleep 92 & wait' & sleep 92")
    assert await running(world, "sleep 92", 2)
    if how == "tool":
        assert "ended with exit code 137" in await job(world, action="kill", job=one)
    else:
        shown, failed = await world.bash(f"kill -- -{pid}")
        assert not failed, shown
        shown = await job(world, action="output", job=one, wait_seconds=10)
        assert "ended with exit code" in shown
    assert await running(world, "sleep 92", 0)


async def test_a_server_of_a_job_is_reached_and_its_output_grows(world: ToolWorld) -> None:
    await world.bash("mkdir www; cd www; echo hello >index.html")
    one, _ = await start(world, "exec python3 -u -m http.server 8123 --bind 127.0.0.1")
    fetch = "curl -s --retry 40 --retry-connrefused --retry-delay 0 --noproxy '*' 127.0.0.1:8123/"
    assert await world.bash(fetch) == ("hello", False)
    assert '"GET / HTTP/1.1" 200' in await job(world, action="output", job=one)
    assert '"GET / HTTP/1.1" 200' in (await world.bash(f"cat ../.tool-output/{one}.log"))[0]


async def test_the_soft_limit_moves_a_command_to_the_background(world: ToolWorld) -> None:
    shown, failed = await world.bash("# background after 3s\necho early; sleep 6; echo late")
    assert not failed
    assert shown.startswith("early\n[it goes on in the background after 3s: job job_")
    one = JOB.search(shown)[1]
    assert await job(world, action="output", job=one, wait_seconds=20) == (
        f"{one}: ended with exit code 0\nearly\nlate"
    )


async def test_a_flood_of_a_job_ends_at_the_limit(data_dir: Path) -> None:
    async with sandbox_of(data_dir, "sbx_tools001") as sandbox:
        world = ToolWorld(sandbox, ToolSettings(spool_mib=2))
        shown, failed = await world.bash("# background after 60s\nyes | head -c 500M; echo x >&2")
        assert not failed
        assert "bytes more were dropped]" in shown
        size, _ = await world.bash("du -sb .tool-output | cut -f1")
        assert int(size) < 4 << 20


async def test_jobs_of_a_sandbox_that_slept_are_told_as_ended(data_dir: Path) -> None:
    driver = NamespaceDriver(data_dir, clock=lambda: datetime.now(UTC))
    spec = SandboxSpec(id="sbx_tools002")
    world = ToolWorld(await driver.create(spec), ToolSettings())
    try:
        one, _ = await start(world, "echo before; sleep 93")
        async with asyncio.timeout(10):
            while "before" not in await job(world, action="output", job=one):
                pass
        await driver.sleep(spec.id)
        world.sandbox = await driver.restore(spec)
        assert await running(world, "sleep 93", 0)
        told = f"{one} ended: the sandbox slept or was replaced since; what it wrote is in"
        assert told in await job(world, action="output", job=one)
        assert (await job(world, action="list")).startswith(f"{one}: ended (the sandbox slept")
        assert await world.bash(f"cat .tool-output/{one}.log") == ("before", False)
    finally:
        await driver.destroy(spec.id)


def test_the_guide_shows_the_schema_of_the_tool() -> None:
    shown = GUIDE.read_text().split("```json\n")[1].split("```")[0]
    assert msgspec.json.decode(shown) == {
        "type": "custom",
        "name": background.name,
        "description": background.description,
        "input_schema": background.schema,
    }
