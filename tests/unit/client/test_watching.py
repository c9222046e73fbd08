"""Watches through the client."""

from collections.abc import AsyncIterator

import pytest

from handiwork import Handiwork
from handiwork.client.watching import Watch
from handiwork.model.errors import GuestError, SandboxUnavailableError
from handiwork.model.sandbox import FileChange


async def test_what_changes(hw: Handiwork) -> None:
    box = await hw.sandboxes.create()
    async with box.files.watch("/workspace") as watch:
        assert watch.directories == 3
        found = [event async for event in watch]
    assert [(one.change, one.path) for one in found] == [
        (FileChange.CREATED, "a\ufffd"),
        (FileChange.OVERFLOW, ""),
    ]


async def test_what_is_not_there(hw: Handiwork) -> None:
    box = await hw.sandboxes.create()
    with pytest.raises(GuestError):
        async with box.files.watch("/none"):
            pass


async def chunks(*given: bytes) -> AsyncIterator[bytes]:
    for chunk in given:
        yield chunk


@pytest.mark.parametrize("given", [(), (b'{"directories": 1}\n',), (b'{"directories": 1}\n{"ev',)])
async def test_a_stream_that_is_cut_off_is_no_end(given: tuple[bytes, ...]) -> None:
    watch = Watch(chunks(*given))
    with pytest.raises(SandboxUnavailableError):
        await read(watch)


async def read(watch: Watch) -> None:
    await watch.open()
    async for _event in watch:
        pass
