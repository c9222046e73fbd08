"""A workspace as a snapshot sees it, and one that is made of a tree whoever wrote it."""

import os
import sqlite3
from pathlib import Path

import pytest

from handiwork.model.errors import GuestError, SandboxUnavailableError, UnsupportedError
from handiwork.sandboxes.isolate import tree
from handiwork.sandboxes.isolate.tree import WorkspaceTree, make_of, put_in_place
from handiwork.sandboxes.isolate.workspace import CHUNK_BYTES, Quota, Workspace
from handiwork.sandboxes.snapshots.listing import Rules
from handiwork.sandboxes.snapshots.manifest import Kind, path_of
from handiwork.sandboxes.snapshots.owners import Range

IDS = Range(0, os.geteuid())
NOW = 1_700_000_000_123_456_789


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workspace.db"


@pytest.fixture
def workspace(path: Path):
    with Workspace(path, clock_ns=lambda: NOW) as made:
        yield made


def put(workspace: Workspace, where: str, data: bytes = b"text", mode: int = 0o644) -> None:
    writing = workspace.writing(where, mode=mode, parents=True)
    writing.add(data)
    writing.finish()


def listed(path: Path, **rules):
    """Return what there is by path: kind, mode, size and content."""
    contents = {}

    def read(entry, content):
        halves = content.size // 2
        contents[id(entry)] = content.read(halves, 0) + content.read(content.size, halves)
        entry.size = content.size
        assert [*content.segments()] == ([(0, content.size)] if content.size else [])

    found = WorkspaceTree(path).listed(Rules(ids=IDS, **rules), read)
    return found.entries, {
        path_of(found.entries, number).decode(): (Kind(one.kind), one.mode, contents.get(id(one)))
        for number, one in enumerate(found.entries)
    }


@pytest.mark.parametrize("closed", [True, False])
def test_all_is_listed_whether_it_is_open_elsewhere_or_not(workspace, path, closed):
    big = os.urandom(CHUNK_BYTES * 2 + 5)
    put(workspace, "/workspace/a-b")
    put(workspace, "/workspace/a/big", big, 0o755)
    put(workspace, "/workspace/a/empty", b"")
    workspace.mkdir("/é", mode=0o700, parents=True)
    if closed:
        workspace.close()
    entries, found = listed(path)
    directory, file = Kind.DIRECTORY, Kind.FILE
    assert found == {
        "/": (directory, 0o755, None),
        "/workspace": (directory, 0o755, None),
        "/workspace/a-b": (file, 0o644, b"text"),
        "/workspace/a": (directory, 0o755, None),
        "/workspace/a/big": (file, 0o755, big),
        "/workspace/a/empty": (file, 0o644, b""),
        "/é": (directory, 0o700, None),
    }
    assert {(one.uid, one.gid, one.mtime_ns) for one in entries} == {(0, 0, NOW)}
    assert all(one.parent < number for number, one in enumerate(entries))


def test_what_is_left_out_is_left_out_with_all_in_it(workspace, path):
    put(workspace, "/workspace/skills/one/SKILL.md")
    put(workspace, "/workspace/kept")
    _, found = listed(path, excluded=frozenset([b"/workspace/skills"]))
    assert [*found] == ["/", "/workspace", "/workspace/kept"]


def test_a_file_that_is_as_it_was_is_not_read_again(workspace, path):
    put(workspace, "/workspace/same")
    put(workspace, "/workspace/other")
    entries, _ = listed(path)
    former = {entry.name: entry for entry in entries if entry.kind == Kind.FILE}
    put(workspace, "/workspace/other", b"else")
    known = {b"/workspace": former}
    _, found = listed(path, known=lambda where: known.get(where, {}))
    assert found["/workspace/same"][2] is None
    assert found["/workspace/other"][2] == b"else"


def test_a_walk_is_of_one_moment(workspace, path):
    for name in "abc":
        put(workspace, f"/workspace/{name}")
    read = []

    def reading(entry, content):
        put(workspace, f"/workspace/{entry.name.decode()}", b"later")
        workspace.remove("/workspace/c", recursive=False) if entry.name == b"a" else None
        read.append(content.read(content.size, 0))

    WorkspaceTree(path).listed(Rules(ids=IDS), reading)
    assert read == [b"text"] * 3


def test_what_is_no_workspace_is_told(tmp_path):
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"x" * 4096)
    with pytest.raises(SandboxUnavailableError, match="the workspace cannot be read"):
        listed(broken)


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    made = tmp_path / "place/upper"
    (made / "workspace/a").mkdir(parents=True)
    (made / "workspace/a/b").write_bytes(b"text")
    (made / "workspace/a/b").chmod(0o700)
    for path in ("workspace/a/b", "workspace/a", "workspace", "."):
        os.utime(made / path, ns=(NOW, NOW))
    return made


def test_a_workspace_is_made_of_a_tree(upper, path):
    (upper / "big").write_bytes(bytes(CHUNK_BYTES + 1))
    make_of(upper.parent, path, Quota())
    with Workspace(path) as made:
        assert [node.path for node in made.walk()] == [
            *("/big", "/workspace", "/workspace/a", "/workspace/a/b"),
        ]
        node = made.stat("/workspace/a/b")
        assert (node.mode, node.mtime_ns, node.size) == (0o700, NOW, 4)
        assert {made.stat(path).mtime_ns for path in ("/workspace", "/workspace/a")} == {NOW}
        assert b"".join(made.read("/big", 0, None)) == bytes(CHUNK_BYTES + 1)


def test_what_was_listed_and_made_again_is_the_same(workspace, path, upper, tmp_path):
    make_of(upper.parent, tmp_path / "one.db", Quota())
    first = listed(tmp_path / "one.db")[1]
    assert first["/workspace/a/b"] == (Kind.FILE, 0o700, b"text")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda upper: (upper / "link").symlink_to("/etc/passwd"),
        lambda upper: (upper / "workspace/link").symlink_to("a"),
        lambda upper: os.mkfifo(upper / "workspace/pipe"),
    ],
)
def test_what_is_no_file_is_refused(upper, path, spoil):
    spoil(upper)
    with pytest.raises(UnsupportedError, match="is no file and no directory"):
        make_of(upper.parent, path, Quota())


def test_a_name_that_is_no_text_and_too_much_are_refused(upper, path):
    with pytest.raises(GuestError, match="the workspace is full"):
        make_of(upper.parent, path, Quota(bytes=1024))
    path.unlink()
    (upper / os.fsdecode(b"\xff")).touch()
    with pytest.raises(GuestError, match="is no text"):
        make_of(upper.parent, path, Quota())


def test_a_root_that_is_a_link_is_not_followed(tmp_path, upper, path):
    place = tmp_path / "other"
    place.mkdir()
    (place / "upper").symlink_to(upper)
    with pytest.raises((OSError, UnsupportedError)):
        make_of(place, path, Quota())


def test_one_takes_the_place_of_another(tmp_path, upper):
    target = tmp_path / "state/workspace.db"
    for content in (b"one", b"two"):
        (upper / "workspace/a/b").write_bytes(content)
        made = tmp_path / "made.db"
        make_of(upper.parent, made, Quota())
        put_in_place(made, target)
        with Workspace(target) as there:
            assert b"".join(there.read("/workspace/a/b", 0, None)) == content
    assert [one.name for one in target.parent.iterdir()] == ["workspace.db"]


def test_nothing_of_the_former_one_gets_into_it(tmp_path, upper):
    """What a crash left beside the former one's file is not taken for the next one's."""
    target = tmp_path / "state/workspace.db"
    target.parent.mkdir()
    former = sqlite3.connect(target)
    former.execute("pragma journal_mode = wal")
    former.execute("create table kept (x)")
    log = target.with_name("workspace.db-wal").read_bytes()
    former.close()
    target.with_name("workspace.db-wal").write_bytes(log)
    made = tmp_path / "made.db"
    make_of(upper.parent, made, Quota())
    put_in_place(made, target)
    with Workspace(target) as there:
        assert there.stat("/workspace/a/b").size == 4
    with sqlite3.connect(target) as db:
        names = {row[0] for row in db.execute("select name from sqlite_master")}
    db.close()
    assert names >= {"nodes", "chunks"}
    assert "kept" not in names


def test_a_former_one_that_is_broken_gives_way(tmp_path, upper):
    target = tmp_path / "state/workspace.db"
    target.parent.mkdir()
    target.write_bytes(b"broken" * 1000)
    target.with_name("workspace.db-wal").write_bytes(b"broken")
    made = tmp_path / "made.db"
    make_of(upper.parent, made, Quota())
    put_in_place(made, target)
    assert listed(target)[1]["/workspace/a/b"][2] == b"text"
    assert tree.IMAGE == "isolate"
