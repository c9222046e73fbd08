"""A file that is written as its bytes come: whole, or as it was."""

import asyncio
from collections.abc import AsyncIterable

import pytest

from handiwork.model.errors import GuestError
from handiwork.model.sandbox import SandboxSpec
from handiwork.sandboxes.file_writer import PIECES, FileWriter
from handiwork.testing.sandbox import FakeDriver, FakeFiles


@pytest.fixture
async def files() -> FakeFiles:
    box = await FakeDriver().create(SandboxSpec(id="sbx_one00000001"))
    return box.files


async def test_it_is_there_when_it_is_finished(files: FakeFiles) -> None:
    writer = await FileWriter.open(files, "/workspace/a")
    for number in range(3 * PIECES):
        await writer.write(b"%d," % number)
    await writer.finish()
    assert await files.read("/workspace/a") == b"0,1,2,3,4,5,6,7,8,9,10,11,"


async def test_one_that_is_given_up_leaves_what_was_there(files: FakeFiles) -> None:
    await files.write("/workspace/a", b"former")
    writer = await FileWriter.open(files, "/workspace/a")
    await writer.write(b"x")
    await writer.abandon()
    assert await files.read("/workspace/a") == b"former"


class Full:
    """Files that take one piece, and then have no room."""

    async def write_stream(
        self, path: str, pieces: AsyncIterable[bytes], *, mode: int = 0o644
    ) -> None:
        async for _ in pieces:
            raise GuestError("no room", errno=28)


async def test_who_writes_is_told_that_it_cannot_be_and_waits_for_nothing() -> None:
    writer = await FileWriter.open(Full(), "/workspace/a")  # type: ignore[arg-type]

    async def write_on() -> None:
        for _ in range(100):
            await writer.write(b"x")
            await asyncio.sleep(0)

    with pytest.raises(GuestError, match="no room"):
        await asyncio.wait_for(write_on(), 10)
    with pytest.raises(GuestError, match="no room"):
        await writer.finish()


async def test_who_finishes_first_is_told_too() -> None:
    writer = await FileWriter.open(Full(), "/workspace/a")  # type: ignore[arg-type]
    await writer.write(b"x")
    with pytest.raises(GuestError, match="no room"):
        await writer.finish()
