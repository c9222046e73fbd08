"""The client's processes, where the API of a stand-in answers; what a cut stream is."""

from collections.abc import AsyncIterator

import pytest

from handiwork import Handiwork
from handiwork.client.processes import Processes, argv_of
from handiwork.model.errors import ConfigError, NotFoundError, SandboxUnavailableError
from handiwork.model.process import ProcessState


@pytest.fixture
async def processes(hw: Handiwork) -> Processes:
    return (await hw.sandboxes.create()).processes


async def frames(found: AsyncIterator[object]) -> list[object]:
    return [frame async for frame in found]


async def test_its_life(processes: Processes) -> None:
    made = await processes.start(["echo", "a"])
    first, second, last = [one async for one in processes.logs(made.id, follow=True)]
    assert (first.at, first.stream, first.data) == (0, "stdout", b"a")
    assert (second.at, second.stream, second.data) == (1, "stderr", b"done")
    assert last.process is not None
    assert last.process.state is ProcessState.EXITED
    assert (await processes.get(made.id)).process == last.process
    assert await processes.list() == [last.process]
    running = await processes.start(["sleep"])
    await processes.signal(running.id, 15)
    await processes.remove(running.id)
    with pytest.raises(NotFoundError):
        await processes.get(running.id)
    with pytest.raises(NotFoundError):
        await frames(processes.logs(running.id))


async def test_a_log_that_is_cut_off_is_no_end(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await processes.start(["echo", "a"])

    async def nothing(_chunks: object) -> AsyncIterator[bytes]:
        for line in ():
            yield line

    monkeypatch.setattr("handiwork.client.processes.lines", nothing)
    with pytest.raises(SandboxUnavailableError):
        await frames(processes.logs(made.id))


@pytest.mark.parametrize("command", [[], ["a", 1]])
def test_what_is_no_command(command: list[str]) -> None:
    with pytest.raises(ConfigError):
        argv_of(command)
    assert argv_of("a b") == ("/bin/sh", "-c", "a b")
