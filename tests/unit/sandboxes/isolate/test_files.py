"""Files of an isolate through the port of every tier."""

import asyncio
import errno
import sqlite3

import pytest

from handiwork.model.errors import GuestError, SandboxUnavailableError
from handiwork.model.sandbox import FileChange, FileKind
from handiwork.sandboxes.isolate import files as module
from handiwork.sandboxes.isolate.files import WorkspaceFiles
from handiwork.sandboxes.isolate.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    with Workspace(tmp_path / "w.db") as found:
        yield found


@pytest.fixture
def files(workspace):
    return WorkspaceFiles(lambda: workspace)


async def test_write_read_list_move_remove(files):
    await files.write("/workspace/a/b", b"123", mode=0o600)
    assert await files.read("/workspace/a/b", offset=1, limit_bytes=1) == b"2"
    assert [one.name for one in await files.list("/workspace")] == ["a"]
    await files.move("/workspace/a/b", "/workspace/c")
    await files.mkdir("/workspace/d/e")
    assert (await files.stat("/workspace/d/e")).kind is FileKind.DIRECTORY
    assert (await files.stat("/workspace/c", follow=False)).size == 3
    await files.remove("/workspace/d", recursive=True)
    assert [one.name for one in await files.list("/workspace", limit=1)] == ["a"]
    assert await files.realpath("/workspace/./x") == "/workspace/x"


async def test_a_stream_of_any_size_is_the_file_when_it_is_whole(files):
    async def pieces():
        for number in range(5):
            yield bytes([number]) * 700_000

    await files.write_stream("/workspace/large", pieces())
    sizes = [len(piece) async for piece in files.read_stream("/workspace/large")]
    assert (sum(sizes), max(sizes)) == (3_500_000, 1 << 16)
    assert (await files.read("/workspace/large"))[2_800_000:2_800_002] == b"\x04\x04"


async def test_a_stream_that_breaks_off_leaves_what_was_there(files, workspace):
    await files.write("/workspace/a", b"former")
    used = workspace.used_bytes

    async def pieces():
        yield b"x" * (3 << 20)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await files.write_stream("/workspace/a", pieces())
    assert await files.read("/workspace/a") == b"former"
    assert workspace.used_bytes == used


async def test_two_who_write_at_once_do_not_meet(files):
    async def pieces(letter):
        for _ in range(3):
            yield letter * (1 << 20)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for letter in (b"a", b"b"):
            group.create_task(files.write_stream(f"/workspace/{letter.decode()}", pieces(letter)))
    for letter in (b"a", b"b"):
        assert await files.read(f"/workspace/{letter.decode()}") == letter * (3 << 20)


async def test_what_is_too_large_for_one_read_is_refused(files, monkeypatch):
    monkeypatch.setattr(module, "READ_WHOLE_BYTES", 2)
    await files.write("/workspace/a", b"123")
    with pytest.raises(GuestError) as error:
        await files.read("/workspace/a")
    assert error.value.errno == errno.EFBIG
    assert await files.read("/workspace/a", limit_bytes=3) == b"123"


async def test_a_database_that_fails_is_told_as_the_sandboxs_fault(files, workspace):
    workspace._db.close()
    workspace._db = sqlite3.connect(":memory:")  # without its tables
    with pytest.raises(SandboxUnavailableError, match="cannot be used"):
        await files.read("/workspace/a")
    with pytest.raises(SandboxUnavailableError):
        await files.write("/workspace/a", b"")


async def test_changes_are_told_while_they_are_watched(files):
    await files.mkdir("/workspace/d")
    watch, flat = await files.watch("/workspace"), await files.watch("/workspace", recursive=False)
    await files.write("/workspace/d/a", b"")
    await files.write("/workspace/b", b"")
    watch.close()
    watch.close()
    flat.close()
    await files.write("/workspace/c", b"")
    assert [event async for event in watch.events()] == []
    again = await files.watch("/workspace")
    await files.write("/workspace/d/a", b"x")
    events = again.events()
    event = await anext(events)
    assert (event.change, event.path) == (FileChange.CHANGED, "d/a")
    again.close()


async def test_only_what_lies_there_is_told(files):
    await files.mkdir("/workspace/d")
    flat = await files.watch("/workspace", recursive=False)
    for path in ("/workspace/d/a", "/workspace/b"):
        await files.write(path, b"")
    events = flat.events()
    assert (await anext(events)).path == "b"
    flat.close()


async def test_what_nobody_reads_overflows(files, monkeypatch):
    monkeypatch.setattr(module, "EVENTS", 2)
    watch = await files.watch("/workspace")
    for number in range(5):
        await files.write(f"/workspace/{number}", b"")
    events = watch.events()
    assert [(await anext(events)).change for _ in range(3)][2] is FileChange.OVERFLOW
    await files.write("/workspace/after", b"")
    assert (await anext(events)).path == "after"
    watch.close()


async def test_watches_have_a_number(files):
    watches = [await files.watch("/workspace") for _ in range(16)]
    with pytest.raises(GuestError) as error:
        await files.watch("/workspace")
    assert error.value.errno == errno.EAGAIN
    watches.pop().close()
    watches.append(await files.watch("/workspace"))
    for watch in watches:
        watch.close()
    await files.write("/workspace/file", b"")
    with pytest.raises(GuestError):
        await files.watch("/workspace/file")


async def test_a_tree_is_told_up_to_a_limit_and_lets_others_go_first(files):
    for number in range(1_100):
        await files.write(f"/workspace/{number:04}", b"")
    nodes = await files.tree(limit=2_000)
    assert [node.path for node in nodes[:2]] == ["/workspace", "/workspace/0000"]
    assert len(nodes) == 1_101
    assert len(await files.tree(limit=7)) == 7
    turns = []
    listing = asyncio.ensure_future(files.tree(limit=2_000))
    while not listing.done():
        turns.append(1)
        await asyncio.sleep(0)
    assert len(turns) > 2
