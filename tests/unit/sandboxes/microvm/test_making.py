"""A new disk with files that were a snapshot's: all of them, as they were, or none."""

import asyncio
import os
import random
import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ext4_disk import inode_at, read_disk, told, volume
from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.microvm import making
from handiwork.sandboxes.microvm.making import OWNERS, Making
from handiwork.sandboxes.snapshots.capture import Wanted
from handiwork.sandboxes.snapshots.generations import Generations
from handiwork.sandboxes.snapshots.manifest import Kind
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.sealing import Keys
from handiwork.testing.blobs import FakeBlobs
from tree_at import TreeAt

CAPABILITY = b"\x00\x00\x00\x02" + bytes(range(16))
SECOND = 10**9


@pytest.fixture
def upper(tmp_path):
    place = tmp_path / "upper"
    (place / "a/b").mkdir(parents=True)
    (place / "a/f").write_bytes(random.Random(1).randbytes(200_000))
    (place / "a/b/small").write_bytes(b"small")
    os.link(place / "a/b/small", place / "z")
    (place / "l").symlink_to("t" * 80)
    os.mkfifo(place / "p")
    os.mknod(place / "gone", 0o020600, 0)
    (place / 'user\'s "own"\n').write_text("odd")
    os.setxattr(place / "a", "user.overlay.opaque", b"y")
    return place


@pytest.fixture
def state(tmp_path):
    place = tmp_path / "state"
    place.mkdir()
    return place


class Kept:
    """A generation of a tree, whose entries a test may change before it is made again."""

    def __init__(self, upper: Path) -> None:
        self.generations = Generations(
            FakeBlobs(), Keys(b"k" * 32), "t", lambda: datetime.now(UTC), os.urandom
        )
        wanted = Wanted(
            tenant="t",
            sandbox_id="sbx_aaaaaaaa",
            number=1,
            reason="request",
            image="i",
            tree="t",
            files=TreeAt(upper),
            ids=Range(0, os.geteuid()),
        )
        self.manifest = self.generations.take(wanted, None, threading.Event())

    def entry(self, name):
        return next(one for one in self.manifest.body.entries if one.name == name)

    async def make(self, place, ids):
        stop = threading.Event()
        make = self.generations.make
        return await asyncio.to_thread(make, self.manifest, ids, place, "upper", stop)


def dressed(kept):
    """Give files what an ordinary user could give none of his."""
    for number, one in enumerate(kept.manifest.body.entries):
        one.uid, one.gid = number, 65_535 - number
        one.mtime_ns = 1_700_000_000 * SECOND + 123_456_789 + number
    kept.entry(b"a").mode = 0o1300
    kept.entry(b"f").mode = 0o6000
    kept.entry(b"f").xattrs = ((b"security.capability", CAPABILITY), (b"user.x", b"1"))
    kept.entry(b"p").mtime_ns = -5 * SECOND + 7
    kept.entry(b"gone").mtime_ns = 5_000_000_000 * SECOND + 999_999_999
    kept.entry(b"l").mtime_ns = 1 << 62
    for one in kept.manifest.body.entries:
        if one.kind == Kind.LINK:
            first = kept.manifest.body.entries[one.link]
            one.uid, one.gid, one.mtime_ns = first.uid, first.gid, first.mtime_ns


def rows(entries):
    """Return what is the same; a time that no such disk holds is none."""
    return [
        (*row[:6], row[6] if row[6] < 1 << 62 else None, *row[9:])
        for row in told(entries)
        if row[1] != b"l"
    ]


async def test_all_is_as_it_was(upper, state):
    kept = Kept(upper)
    dressed(kept)
    await Making(state, 32).run(kept.make)
    found, contents = read_disk(state / "disk", OWNERS)
    for one in kept.manifest.body.entries:
        one.size = one.size if one.kind == Kind.FILE else 0
    assert rows(found) == rows(kept.manifest.body)
    by_name = {name.partition(b" ")[2]: content for name, content in contents.items()}
    assert by_name[b"f"] == (upper / "a/f").read_bytes()
    assert by_name[b"z"] == b"small"
    assert [path.name for path in state.iterdir()] == ["disk"]
    root = inode_at(volume((state / "disk").read_bytes()), "upper")
    assert (root.uid, root.gid) == (1 << 30, (1 << 30) + 65_535)


async def test_names_of_one_link_become_links_of_their_own(upper, state):
    """So mkfs.ext4 has it; what they lead to is the same."""
    os.link(upper / "l", upper / "a/again", follow_symlinks=False)
    os.link(upper / "p", upper / "a/pipe")
    kept = Kept(upper)
    dressed(kept)
    kept.entry(b"l").mtime_ns = 7 * SECOND
    await Making(state, 32).run(kept.make)
    found, _ = read_disk(state / "disk", OWNERS)
    links = [one for one in found.entries if one.kind == Kind.SYMLINK]
    assert {(one.target, one.uid, one.mtime_ns) for one in links} == {
        (b"t" * 80, kept.entry(b"l").uid, 7 * SECOND)
    }
    assert len(links) == 2
    assert [one.name for one in found.entries if one.kind == Kind.LINK] != []


@pytest.mark.parametrize("step", ["mkfs.ext4", "debugfs", "compare"])
async def test_who_gives_up_has_nothing_running_on(upper, state, monkeypatch, step):
    begun, loop = asyncio.Event(), asyncio.get_running_loop()
    run, compare = making.run_tool, making.compare

    async def told(argv, directory):
        if argv[0] == step:
            begun.set()
        await run(argv, directory)

    def compared(*trees):
        loop.call_soon_threadsafe(begun.set)
        compare(*trees)

    monkeypatch.setattr(making, "run_tool", told)
    monkeypatch.setattr(making, "compare", compared)
    task = asyncio.create_task(Making(state, 32).run(Kept(upper).make))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(shutil.rmtree, state)
    await asyncio.sleep(0.2)
    assert not state.exists()


async def test_what_has_no_room_leaves_an_error(upper, state):
    (upper / "large").write_bytes(random.Random(2).randbytes(12 << 20))
    with pytest.raises(SandboxUnavailableError, match="no room on a disk of 8 MiB"):
        await Making(state, 8).run(Kept(upper).make)


async def test_what_fails_in_between_is_told(state):
    async def make(_place, _ids):
        raise SandboxUnavailableError("chunk is damaged")

    with pytest.raises(SandboxUnavailableError, match="chunk is damaged"):
        await Making(state, 8).run(make)
    assert not (state / "disk").exists()


async def test_what_takes_too_long_is_ended(upper, state, monkeypatch):
    monkeypatch.setattr(making, "MAKE_SECONDS", 0.0)
    with pytest.raises(SandboxUnavailableError, match="not written within 0 s"):
        await Making(state, 8).run(Kept(upper).make)


@pytest.mark.parametrize(
    "forgotten", ["mode", "uid", "gid", "mtime", "mtime_extra", "security.capability"]
)
async def test_what_a_tool_leaves_out_in_silence_is_found(upper, state, monkeypatch, forgotten):
    kept = Kept(upper)
    dressed(kept)
    run = making.run_tool

    async def forgetful(argv, directory):
        commands = directory / making.COMMANDS
        if commands.exists():
            lines = commands.read_text().splitlines(keepends=True)
            commands.write_text("".join(one for one in lines if f" {forgotten}" not in one))
        await run(argv, directory)

    monkeypatch.setattr(making, "run_tool", forgetful)
    with pytest.raises(SandboxUnavailableError, match="is not on the new disk as it was"):
        await Making(state, 32).run(kept.make)


@pytest.mark.parametrize("name", [b"f", b"z", b"l"])
async def test_a_file_that_is_not_there_or_one_too_many_is_found(upper, state, name):
    """`make` says that it made other files than it did."""
    kept = Kept(upper)
    entries = list(kept.manifest.body.entries)

    async def make(place, ids):
        await kept.make(place, ids)
        if name == b"l":
            entries.append(entries[-1].__class__(0, b"more", Kind.FIFO, 0o600, 0, 0, 0))
        else:
            kept.entry(name).size += 1
        return entries

    with pytest.raises(SandboxUnavailableError, match="is not on the new disk as it was"):
        await Making(state, 32).run(make)
