"""One store in one sandbox: written whole, synced both ways, never wiped, never silent."""

from pathlib import Path

import pytest

from handiwork.model.attachment import Memory, MemoryStoreRef
from handiwork.model.errors import (
    BrainRefusedError,
    BrainUnavailableError,
    ConflictError,
    HandiworkError,
    NotFoundError,
)
from handiwork.sessions.memory.folder import MARKER
from handiwork.sessions.memory.mount import MemoryMount, Store, mount_path
from handiwork.testing.resources import FakeMemories
from host_sandbox import HostFiles
from resources_server import WORK

STORE = "memstore_1"


class Mounted:
    """A store with two memories, mounted."""

    def __init__(self, root: Path, brain: FakeMemories, *, read_only: bool = False) -> None:
        self.brain = brain
        self.files = HostFiles(root)
        self.place = root / "mnt/memory/notes"
        self.told: list[tuple[str, str]] = []
        self.time = 0.0
        ref = MemoryStoreRef(store_id=STORE, mount_path="/mnt/memory/notes", read_only=read_only)
        self.mount = MemoryMount(
            Store(ref=ref, memories=brain, work=WORK),
            mount_path(ref),
            tell=lambda kind, path, reason: self.told.append((kind, path)),
            now=lambda: self.time,
        )

    async def sync(self, *, final: bool = False) -> None:
        await self.mount.sync(self.files, final=final)
        self.time += 40

    def here(self) -> dict[str, str]:
        return {
            f"/{path.relative_to(self.place)}": path.read_text()
            for path in self.place.rglob("*")
            if path.is_file() and path.name != MARKER
        }

    def there(self) -> dict[str, str | None]:
        return self.brain.contents(STORE)


@pytest.fixture
def brain() -> FakeMemories:
    brain = FakeMemories(STORE)
    brain.put(STORE, "/a.md", "one")
    brain.put(STORE, "/sub/b.md", "two")
    return brain


@pytest.fixture
async def mounted(tmp_path: Path, brain: FakeMemories) -> Mounted:
    mounted = Mounted(tmp_path, brain)
    await mounted.mount.attach(mounted.files, fresh=True)
    return mounted


async def test_the_whole_store_is_written_at_the_start(mounted: Mounted) -> None:
    assert mounted.here() == {"/a.md": "one", "/sub/b.md": "two"}
    assert not await mounted.mount.is_changed(mounted.files)
    await mounted.sync()
    assert mounted.told == []


async def test_changes_go_both_ways(mounted: Mounted) -> None:
    (mounted.place / "a.md").write_text("ours")
    (mounted.place / "new").write_text("fresh ü")
    mounted.brain.put(STORE, "/sub/b.md", "theirs")
    mounted.brain.put(STORE, "/c", "added")
    assert await mounted.mount.is_changed(mounted.files)
    await mounted.sync()
    expected = {"/a.md": "ours", "/new": "fresh ü", "/sub/b.md": "theirs", "/c": "added"}
    assert mounted.here() == mounted.there() == expected
    assert not await mounted.mount.is_changed(mounted.files)


async def test_what_changed_on_both_sides_is_as_the_brain_has_it_and_told(
    mounted: Mounted,
) -> None:
    (mounted.place / "a.md").write_text("ours")
    mounted.brain.put(STORE, "/a.md", "theirs")
    await mounted.sync()
    assert mounted.here()["/a.md"] == mounted.there()["/a.md"] == "theirs"
    assert mounted.told == [("memory.overwritten", "a.md")]


async def test_a_race_that_is_lost_after_the_listing(
    mounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(*_: object) -> Memory:
        mounted.brain.put(STORE, "/a.md", "theirs")
        raise ConflictError("changed")

    (mounted.place / "a.md").write_text("ours")
    monkeypatch.setattr(mounted.brain, "update", late)
    await mounted.sync()
    assert mounted.told == [("memory.overwritten", "a.md")]
    monkeypatch.undo()
    await mounted.sync()
    assert mounted.here()["/a.md"] == mounted.there()["/a.md"] == "theirs"


async def test_an_update_of_what_was_just_deleted_creates_it(
    mounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object) -> Memory:
        del mounted.brain.stores[STORE]["/a.md"]
        raise NotFoundError("gone")

    (mounted.place / "a.md").write_text("ours")
    monkeypatch.setattr(mounted.brain, "update", gone)
    await mounted.sync()
    assert mounted.there()["/a.md"] == "ours"


async def test_a_delete_there_goes_here_unless_the_file_has_changed(mounted: Mounted) -> None:
    del mounted.brain.stores[STORE]["/a.md"]
    del mounted.brain.stores[STORE]["/sub/b.md"]
    (mounted.place / "sub/b.md").write_text("edited")
    await mounted.sync()
    assert mounted.here() == mounted.there() == {"/sub/b.md": "edited"}


async def test_a_delete_here_goes_there_after_a_while(mounted: Mounted) -> None:
    (mounted.place / "a.md").unlink()
    assert await mounted.mount.is_changed(mounted.files)
    await mounted.sync()
    assert "/a.md" in mounted.there()
    assert not await mounted.mount.is_changed(mounted.files)
    await mounted.sync()
    assert mounted.there() == {"/sub/b.md": "two"}


async def test_the_last_sync_does_not_wait_with_deletes(mounted: Mounted) -> None:
    (mounted.place / "a.md").unlink()
    await mounted.sync(final=True)
    assert mounted.there() == {"/sub/b.md": "two"}


async def test_when_all_is_gone_it_is_written_again(mounted: Mounted) -> None:
    (mounted.place / "a.md").unlink()
    (mounted.place / "sub/b.md").unlink()
    await mounted.sync(final=True)
    assert mounted.here() == mounted.there() == {"/a.md": "one", "/sub/b.md": "two"}
    await mounted.files.remove("/mnt/memory/notes", recursive=True)
    await mounted.sync(final=True)
    assert mounted.here() == mounted.there() == {"/a.md": "one", "/sub/b.md": "two"}


async def test_without_its_marker_it_is_not_synced(mounted: Mounted) -> None:
    (mounted.place / MARKER).unlink()
    (mounted.place / "a.md").write_text("ours")
    (mounted.place / "sub/b.md").unlink()
    for _ in range(2):
        with pytest.raises(ConflictError, match="marker"):
            await mounted.sync(final=True)
    assert mounted.there() == {"/a.md": "one", "/sub/b.md": "two"}


async def test_what_the_brain_refuses_stays_here_until_it_changes(
    mounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    async def refuse(work: object, store_id: str, path: str, content: str) -> Memory:
        tries.append(content)
        raise BrainRefusedError("no")

    monkeypatch.setattr(mounted.brain, "create", refuse)
    (mounted.place / "odd").write_text("1")
    await mounted.sync()
    await mounted.sync()
    assert tries == ["1"]
    assert mounted.told == [("memory.refused", "odd")]
    assert not await mounted.mount.is_changed(mounted.files)
    (mounted.place / "odd").write_text("22")
    await mounted.sync()
    assert tries == ["1", "22"]


async def test_what_no_store_takes_is_told_once_and_deletes_nothing(mounted: Mounted) -> None:
    (mounted.place / "a.md").write_bytes(b"\xff")
    (mounted.place / "large").write_bytes(b"x" * 200_000)
    await mounted.sync()
    await mounted.sync(final=True)
    assert mounted.there() == {"/a.md": "one", "/sub/b.md": "two"}
    assert sorted(mounted.told) == [("memory.unfit", "a.md"), ("memory.unfit", "large")]


async def test_an_answer_that_never_came(mounted: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    async def cut(work: object, store_id: str, memory: Memory, content: str) -> Memory:
        mounted.brain.put(STORE, memory.path, content)
        raise BrainUnavailableError("cut")

    (mounted.place / "a.md").write_text("ours")
    monkeypatch.setattr(mounted.brain, "update", cut)
    with pytest.raises(BrainUnavailableError):
        await mounted.sync()
    monkeypatch.undo()
    (mounted.place / "a.md").write_text("ours, again")
    await mounted.sync()
    assert mounted.here()["/a.md"] == mounted.there()["/a.md"] == "ours, again"
    assert mounted.told == []


async def test_read_only_takes_and_never_gives(tmp_path: Path, brain: FakeMemories) -> None:
    mounted = Mounted(tmp_path, brain, read_only=True)
    await mounted.mount.attach(mounted.files, fresh=True)
    await mounted.files.write("/mnt/memory/notes/a.md", b"ours")
    await mounted.files.write("/mnt/memory/notes/new", b"ours")
    (mounted.place / "sub/b.md").unlink()
    brain.put(STORE, "/c", "added")
    await mounted.sync(final=True)
    assert mounted.there() == {"/a.md": "one", "/sub/b.md": "two", "/c": "added"}
    assert mounted.there().items() <= mounted.here().items()


async def test_two_sandboxes_with_the_same_store(tmp_path: Path, brain: FakeMemories) -> None:
    one, other = Mounted(tmp_path / "1", brain), Mounted(tmp_path / "2", brain)
    for each in (one, other):
        await each.mount.attach(each.files, fresh=True)
    (one.place / "a.md").write_text("of one")
    (other.place / "a.md").write_text("of the other")
    (other.place / "sub/b.md").write_text("of the other")
    for each in (one, other, one):
        await each.sync()
    expected = {"/a.md": "of one", "/sub/b.md": "of the other"}
    assert one.here() == other.here() == one.there() == expected
    assert (one.told, other.told) == ([], [("memory.overwritten", "a.md")])


async def test_memories_whose_paths_have_no_place(tmp_path: Path, brain: FakeMemories) -> None:
    brain.put(STORE, "/../escape", "x")
    brain.put(STORE, "/a.md/below-a-file", "x")
    mounted = Mounted(tmp_path, brain)
    await mounted.mount.attach(mounted.files, fresh=True)
    await mounted.sync(final=True)
    assert mounted.here() == {"/a.md": "one", "/sub/b.md": "two"}
    assert len(mounted.there()) == 4
    assert [kind for kind, _ in mounted.told] == ["memory.unfit", "memory.not_written"]


async def test_a_store_that_is_too_large(tmp_path: Path, brain: FakeMemories) -> None:
    for number in range(2000):
        brain.put(STORE, f"/{number}", "x")
    mounted = Mounted(tmp_path, brain)
    with pytest.raises(BrainRefusedError, match="more than 2000 memories"):
        await mounted.mount.attach(mounted.files, fresh=True)


@pytest.mark.parametrize(
    "path",
    ["/etc", "/mnt/memory", "/mnt/memory/", "/mnt/memory/a/b", "/mnt/memory/..", "/mnt/memory/ü"],
)
def test_places_that_are_not_for_that(path: str) -> None:
    with pytest.raises(HandiworkError, match="only /mnt/memory/NAME is served"):
        mount_path(MemoryStoreRef(store_id="m", mount_path=path))


def test_a_store_without_a_place() -> None:
    assert mount_path(MemoryStoreRef(store_id="m", name="notes")) == "/mnt/memory/notes"
    assert mount_path(MemoryStoreRef(store_id="m_1")) == "/mnt/memory/m_1"
