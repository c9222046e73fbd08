"""`workspace.*` of guest code."""

import json

import msgspec
import pytest

from handiwork.model.errors import ToolFailedError
from handiwork.sandboxes.isolate import workspace_calls as module
from handiwork.sandboxes.isolate.files import WorkspaceFiles
from handiwork.sandboxes.isolate.workspace import Workspace
from handiwork.sandboxes.isolate.workspace_calls import WorkspaceCalls


@pytest.fixture
def call(tmp_path):
    with Workspace(tmp_path / "w.db", clock_ns=lambda: 5_000_000) as workspace:
        calls = WorkspaceCalls(WorkspaceFiles(lambda: workspace))

        async def call(name, *ordered, **named):
            fields = {**({"$arguments": ordered} if ordered else {}), **named}
            found = await calls.serve(name, msgspec.Raw(json.dumps(fields).encode()))
            return json.loads(msgspec.json.encode(found))

        yield call


async def test_files_from_their_making_to_their_end(call):
    assert await call("write", "notes/a.txt", "é") == 2
    assert await call("read", "notes/a.txt") == "é"
    assert await call("append", path="/workspace/notes/a.txt", content="b") == 3
    assert await call("append", "new", "c") == 1
    assert await call("stat", "notes/a.txt") == {
        "name": "a.txt",
        "type": "file",
        "size": 3,
        "mtimeMs": 5,
    }
    assert [one["name"] for one in await call("list")] == ["new", "notes"]
    await call("mkdir", "empty")
    assert await call("exists", "empty") is True
    await call("move", "new", "empty/old")
    assert await call("exists", "new") is False
    await call("delete", "empty", recursive=True)
    assert [one["name"] for one in await call("list", "/workspace")] == ["notes"]


@pytest.mark.parametrize("name", ["readBytes", "read_bytes"])
async def test_bytes_and_parts(call, name):
    await call("write", "a", {"$bytes": "AQL/"})
    assert await call(name, "a") == {"$bytes": "AQL/"}
    assert await call(name, "a", 1, 1) == {"$bytes": "Ag=="}
    with pytest.raises(ToolFailedError, match=r"no UTF-8; use workspace\.readBytes"):
        await call("read", "a")


async def test_what_is_too_large_at_once_is_told(call, monkeypatch):
    monkeypatch.setattr(module, "READ_BYTES", 2)
    await call("write", "a", "123")
    with pytest.raises(ToolFailedError, match="in parts"):
        await call("read", "a")
    assert await call("read", "a", offset=1) == "23"
    assert await call("read", "a", limit=9) == "12"


async def test_modules(call, monkeypatch):
    await call("write", "lib/b.py", "x = 1")
    assert await call("module", path="/workspace/lib/b.py") == "x = 1"
    paths = ["/workspace/lib", "/workspace/none.py", "/workspace/lib/b.py"]
    found = await call("find_module", paths=paths)
    assert found == {"path": "/workspace/lib/b.py", "text": "x = 1"}
    assert await call("find_module", paths=["/workspace/lib"]) is None
    monkeypatch.setattr(module, "MODULE_BYTES", 2)
    with pytest.raises(ToolFailedError, match="a module of more than"):
        await call("module", path="/workspace/lib/b.py")


async def test_what_fails_is_told_to_the_code(call):
    with pytest.raises(ToolFailedError, match=r"workspace.read: .*No such file"):
        await call("read", "none")
    with pytest.raises(
        ToolFailedError, match=r"workspace.fly: there is no such call; there are read,"
    ):
        await call("fly")
    with pytest.raises(ToolFailedError, match="it takes path"):
        await call("mkdir")


async def test_a_tree_has_another_version_for_each_write(call, monkeypatch):
    await call("write", "a", "1", mode=0o755)
    first = await call("tree")
    (home, (path, version, size, mode)) = first["entries"]
    assert (home[:3], path, size, mode, first["more"]) == (
        ["/workspace", 0, 0],
        "/workspace/a",
        1,
        0o755,
        False,
    )
    await call("write", "a", "2")
    assert (await call("tree"))["entries"][1][1] > version
    monkeypatch.setattr(module, "LISTED", 1)
    assert await call("tree") == {"entries": [home], "more": True}
    with pytest.raises(ToolFailedError, match="it takes nothing"):
        await call("tree", "a")
