"""What a walk of a sandbox's files finds, and where it ends."""

import pytest

from handiwork.model.errors import GuestError
from handiwork.model.sandbox import SandboxSpec
from handiwork.testing.sandbox import FakeDriver, FakeFiles
from handiwork.tools.walk import walked


@pytest.fixture
async def files() -> FakeFiles:
    box = await FakeDriver().create(SandboxSpec(id="sbx_one00000001"))
    for path in ("a", "b/one", "b/c/two", "node_modules/three"):
        await box.files.write(f"/workspace/{path}", b"text")
    return box.files


async def paths(files: FakeFiles, root: str = "/workspace", limit: int = 100, **given) -> list[str]:
    found = [one async for one in walked(files, root, limit, **given)]
    return [one.path.removeprefix("/workspace") for one in found]


async def test_all_of_it_is_found_directory_by_directory(files: FakeFiles) -> None:
    assert await paths(files) == [
        *("/a", "/b", "/node_modules"),
        *("/b/c", "/b/one"),
        "/node_modules/three",
        "/b/c/two",
    ]
    (entry,) = [one async for one in walked(files, "/workspace", 1)]
    assert (entry.size, entry.is_directory, entry.is_link) == (4, False, False)


async def test_it_goes_no_deeper_nor_further_than_it_is_told(files: FakeFiles) -> None:
    assert await paths(files, deepest=1) == ["/a", "/b", "/node_modules"]
    assert await paths(files, limit=4) == ["/a", "/b", "/node_modules", "/b/c"]
    assert "/node_modules/three" not in await paths(files, left_out=("node_modules",))


async def test_a_file_is_all_that_is_below_it(files: FakeFiles) -> None:
    assert await paths(files, "/workspace/b/one") == ["/b/one"]
    with pytest.raises(GuestError):
        await paths(files, "/workspace/none")
