"""All stores of a session: mounted or told, synced by the clock and after calls, taken away."""

import asyncio
from pathlib import Path

import pytest

from handiwork.model.attachment import MemoryStoreRef
from handiwork.model.errors import HandiworkError, UnauthorizedError, UnsupportedError
from handiwork.model.session import WaitingKind
from handiwork.sandboxes.protocol import Sandbox
from handiwork.sessions.journal import Journal
from handiwork.sessions.memory import stores
from handiwork.sessions.memory.stores import SessionMemories
from handiwork.testing.resources import FakeMemories
from handiwork.testing.store import MemoryStore
from host_sandbox import HostSandbox
from resources_server import WORK
from session_world import clock, until

REF = MemoryStoreRef(store_id="memstore_1", mount_path="/mnt/memory/notes")
PLACE = "mnt/memory/notes"


class Session:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.brain = FakeMemories("memstore_1")
        self.brain.put("memstore_1", "/a", "one")
        self.sandbox = HostSandbox("sbx_1", root)
        self.journal = Journal(MemoryStore().sessions, WORK.session_id, clock)
        self.memories = SessionMemories(WORK, self.journal, self.use, self.claim)
        self.claimed: list[str] = []
        self.broken: HandiworkError | None = None

    async def claim(self, path: str) -> None:
        assert not (self.root / path.lstrip("/")).exists()
        self.claimed.append(path)

    async def use(self) -> Sandbox:
        if self.broken is not None:
            raise self.broken
        return self.sandbox

    async def attach(self, *refs: MemoryStoreRef) -> None:
        await self.memories.attach(self.brain, refs, self.sandbox.files, fresh=True)

    @property
    def waiting(self) -> list[tuple[WaitingKind, str]]:
        return [(one.kind, one.name) for one in self.journal.waiting]

    def there(self) -> dict[str, str | None]:
        return self.brain.contents("memstore_1")


@pytest.fixture
async def session(tmp_path: Path) -> Session:
    return Session(tmp_path)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(stores, "SYNC_SECONDS", 0.05)


async def test_mounted_and_taken_away_with_what_changed(session: Session) -> None:
    await session.attach(REF)
    (session.root / PLACE / "b").write_text("two")
    await session.memories.finish()
    assert session.there() == {"/a": "one", "/b": "two"}
    assert not (session.root / PLACE).exists()
    assert session.waiting == []


async def test_saved_in_haste_the_folder_stays(session: Session) -> None:
    await session.attach(REF)
    (session.root / PLACE / "b").write_text("two")
    await session.memories.finish(seconds=3, final=False)
    assert session.there() == {"/a": "one", "/b": "two"}
    assert (session.root / PLACE / "b").exists()


async def test_what_cannot_be_mounted_is_told_and_raised(session: Session) -> None:
    session.brain.failing = UnauthorizedError("memory stores need the session's own token")
    with pytest.raises(UnauthorizedError, match="own token"):
        await session.attach(REF)
    assert session.waiting == [(WaitingKind.MEMORY_STORE, REF.mount_path)]
    session.brain.failing = None
    await session.memories.attach(session.brain, [REF], session.sandbox.files, fresh=False)
    assert session.waiting == []


async def test_no_access_too_many_and_two_at_one_place(session: Session) -> None:
    with pytest.raises(UnsupportedError, match="not served here"):
        await session.memories.attach(None, [REF], session.sandbox.files, fresh=True)
    with pytest.raises(UnsupportedError, match="another store is mounted"):
        await session.attach(REF, REF)
    refs = [MemoryStoreRef(store_id="memstore_1", name=f"n{n}") for n in range(8)]
    with pytest.raises(UnsupportedError, match="at most 8"):
        await session.attach(REF, *refs)


async def test_a_call_that_ended_is_followed_by_a_sync(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "LEAST_SECONDS", 0.0)
    await session.attach(REF)
    following = asyncio.ensure_future(session.memories.follow())
    (session.root / PLACE / "b").write_text("two")
    session.memories.touch()
    await until(lambda: "/b" in session.there())
    following.cancel()


@pytest.mark.usefixtures("hasty")
async def test_the_clock_brings_what_others_wrote(session: Session) -> None:
    await session.attach(REF)
    following = asyncio.ensure_future(session.memories.follow())
    session.brain.put("memstore_1", "/b", "theirs")
    await until(lambda: (session.root / PLACE / "b").exists())
    following.cancel()


@pytest.mark.usefixtures("hasty")
async def test_a_sync_that_fails_is_told_until_one_succeeds(session: Session) -> None:
    await session.attach(REF)
    following = asyncio.ensure_future(session.memories.follow())
    session.brain.failing = UnauthorizedError("the token has expired")
    await until(lambda: session.waiting == [(WaitingKind.MEMORY_STORE, REF.mount_path)])
    session.brain.failing = None
    await until(lambda: session.waiting == [])
    session.broken = HandiworkError("no sandbox")
    await asyncio.sleep(0.2)
    assert not following.done()
    following.cancel()


async def test_without_stores_there_is_nothing_to_follow(session: Session) -> None:
    session.broken = HandiworkError("not to be asked for")
    await session.memories.follow()
    await session.memories.finish()
    assert not list((session.root).glob("mnt"))


async def test_an_end_that_takes_too_long(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(*_: object, **__: object) -> None:
        await asyncio.sleep(60)

    await session.attach(REF)
    monkeypatch.setattr("handiwork.sessions.memory.mount.MemoryMount.sync", slow)
    await session.memories.finish(seconds=0.1)
    assert (session.root / PLACE).exists()
