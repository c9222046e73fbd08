"""The files of an isolate in their SQLite file: as a kernel's, whole or not at all, and no more than the quota."""

import errno
import posixpath
import sqlite3

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from handiwork.model.errors import GuestError
from handiwork.model.sandbox import FileChange, FileKind
from handiwork.sandboxes.isolate import workspace as module
from handiwork.sandboxes.isolate.workspace import NODE_BYTES, Quota, Workspace, cleaned


@pytest.fixture
def workspace(tmp_path):
    with Workspace(tmp_path / "w.db", clock_ns=lambda: 7) as found:
        yield found


def write(workspace, path, data, *, mode=0o644, parents=True):
    writing = workspace.writing(path, mode=mode, parents=parents)
    try:
        writing.add(data)
        writing.finish()
    finally:
        writing.abort()


def read(workspace, path, offset=0, limit=None):
    return b"".join(workspace.read(path, offset, limit))


def fails(number):
    return pytest.raises(GuestError, check=lambda error: error.errno == number)


def test_a_new_one_has_a_place_to_work(workspace):
    assert [node.path for node in workspace.list("/", 10)] == ["/workspace"]
    assert workspace.stat("/workspace").info().kind is FileKind.DIRECTORY


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8192, 10_000])
def test_what_was_written_is_read_in_any_parts(workspace, monkeypatch, size):
    monkeypatch.setattr(module, "CHUNK_BYTES", 4096)
    data = bytes(n % 251 for n in range(size))
    write(workspace, "/workspace/a/b", data, mode=0o600)
    assert read(workspace, "/workspace/a/b") == data
    assert read(workspace, "/workspace/a/b", 4000, 200) == data[4000:4200]
    assert read(workspace, "/workspace/a/b", size + 1) == b""
    info = workspace.stat("/workspace/a/b").info()
    assert (info.size, info.mode & 0o7777, info.mtime_ns, info.name) == (size, 0o600, 7, "b")


def test_it_is_there_the_next_time_and_what_was_not_finished_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 10)
    first = Workspace(tmp_path / "w.db")
    write(first, "/workspace/kept", b"kept")
    half = first.writing("/workspace/half", mode=0o644, parents=True)
    half.add(b"x" * 100)
    first.close()  # as a kill would
    with Workspace(tmp_path / "w.db") as second:
        assert read(second, "/workspace/kept") == b"kept"
        assert [node.path for node in second.walk()] == ["/workspace", "/workspace/kept"]
        assert second.used_bytes == 4 + 3 * NODE_BYTES
        write(second, "/workspace/new", b"y" * 25)
        assert read(second, "/workspace/kept") == b"kept"
    rows = sqlite3.connect(tmp_path / "w.db").execute("select count(*) from chunks").fetchone()
    assert rows == (4,)


def test_a_file_is_replaced_whole_and_its_former_bytes_are_gone(workspace):
    write(workspace, "/workspace/a", b"one" * 100)
    used = workspace.used_bytes
    second = workspace.writing("/workspace/a", mode=0o644, parents=True)
    second.add(b"two")
    assert read(workspace, "/workspace/a") == b"one" * 100
    second.finish()
    assert read(workspace, "/workspace/a") == b"two"
    assert workspace.used_bytes == used - 297


def test_who_reads_one_that_is_replaced_is_told(workspace, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 4)
    write(workspace, "/workspace/a", b"12345678")
    reading = workspace.read("/workspace/a", 0, None)
    assert next(reading) == b"1234"
    write(workspace, "/workspace/a", b"other")
    with fails(errno.ESTALE):
        list(reading)


@pytest.mark.parametrize(
    ("act", "number"),
    [
        (lambda w: w.stat("/none"), errno.ENOENT),
        (lambda w: w.stat("/workspace/file/x"), errno.ENOTDIR),
        (lambda w: w.list("/workspace/file", 1), errno.ENOTDIR),
        (lambda w: read(w, "/workspace"), errno.EISDIR),
        (lambda w: write(w, "/workspace/full", b""), errno.EISDIR),
        (lambda w: write(w, "/", b""), errno.EISDIR),
        (lambda w: write(w, "/workspace/file/x", b""), errno.ENOTDIR),
        (lambda w: write(w, "/workspace/new/x", b"", parents=False), errno.ENOENT),
        (lambda w: w.mkdir("/workspace/full", mode=0o755, parents=False), errno.EEXIST),
        (lambda w: w.mkdir("/workspace/file", mode=0o755, parents=True), errno.EEXIST),
        (lambda w: w.mkdir("/workspace/x/y", mode=0o755, parents=False), errno.ENOENT),
        (lambda w: w.remove("/workspace/full", recursive=False), errno.ENOTEMPTY),
        (lambda w: w.remove("/workspace", recursive=True), errno.EBUSY),
        (lambda w: w.remove("/", recursive=True), errno.EBUSY),
        (lambda w: w.move("/workspace", "/other"), errno.EINVAL),
        (lambda w: w.move("/workspace/full", "/workspace/full/in"), errno.EINVAL),
        (lambda w: w.move("/workspace/file", "/workspace/full"), errno.EISDIR),
        (lambda w: w.move("/workspace/full", "/workspace/file"), errno.ENOTDIR),
        (lambda w: w.move("/workspace/empty", "/workspace/full"), errno.ENOTEMPTY),
        (lambda w: w.move("/workspace/file", "/workspace/none/x"), errno.ENOENT),
        (lambda w: w.stat("workspace"), errno.EINVAL),
        (lambda w: w.stat("/a\0b"), errno.EINVAL),
        (lambda w: w.stat("/" + "x" * 256), errno.ENAMETOOLONG),
        (lambda w: w.stat("/x" * 2100), errno.ENAMETOOLONG),
        (lambda w: w.stat("/\ud800"), errno.EILSEQ),
    ],
)
def test_what_cannot_be_is_told_as_a_kernel_would(workspace, act, number):
    write(workspace, "/workspace/file", b"x")
    write(workspace, "/workspace/full/inner", b"y")
    workspace.mkdir("/workspace/empty", mode=0o755, parents=True)
    before = [*workspace.walk()], workspace.used_bytes
    with fails(number):
        act(workspace)
    assert ([*workspace.walk()], workspace.used_bytes) == before


def test_moves_take_along_all_that_is_below(workspace):
    write(workspace, "/workspace/a/b/c", b"1")
    write(workspace, "/workspace/a.txt", b"2")
    write(workspace, "/workspace/a0", b"3")
    workspace.mkdir("/workspace/target", mode=0o755, parents=True)
    workspace.move("/workspace/a", "/workspace/target")
    assert [node.path for node in workspace.walk("/workspace")] == [
        "/workspace/a.txt",
        "/workspace/a0",
        "/workspace/target",
        "/workspace/target/b",
        "/workspace/target/b/c",
    ]
    assert [node.path for node in workspace.list("/workspace/target/b", 9)] == [
        "/workspace/target/b/c"
    ]
    assert read(workspace, "/workspace/target/b/c") == b"1"


def test_the_quota_is_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    quota = Quota(bytes=20_000, nodes=8)
    with Workspace(tmp_path / "w.db", quota) as workspace:
        write(workspace, "/workspace/a", b"x" * 10_000)
        used = workspace.used_bytes
        with fails(errno.EDQUOT):
            write(workspace, "/workspace/b", b"x" * 10_000)
        assert workspace.used_bytes == used
        with fails(errno.EDQUOT):
            write(workspace, "/workspace/c/d/e/f/g/h/i", b"")
        assert [node.path for node in workspace.walk()] == ["/workspace", "/workspace/a"]
        workspace.remove("/workspace/a", recursive=False)
        write(workspace, "/workspace/b", b"x" * 10_000)


def test_listeners_are_told_until_they_stop(workspace):
    heard = []
    stop = workspace.listen(lambda *change: heard.append(change))
    write(workspace, "/workspace/a", b"1")
    write(workspace, "/workspace/a", b"2")
    workspace.move("/workspace/a", "/workspace/b")
    workspace.mkdir("/workspace/d", mode=0o755, parents=True)
    workspace.remove("/workspace/d", recursive=False)
    stop()
    workspace.remove("/workspace/b", recursive=False)
    assert heard == [
        (FileChange.CREATED, "/workspace/a", False),
        (FileChange.CHANGED, "/workspace/a", False),
        (FileChange.MOVED_AWAY, "/workspace/a", False),
        (FileChange.MOVED_HERE, "/workspace/b", False),
        (FileChange.CREATED, "/workspace/d", True),
        (FileChange.REMOVED, "/workspace/d", True),
    ]


def test_a_copy_has_all_of_it_and_is_another(workspace, tmp_path):
    write(workspace, "/workspace/a", b"1")
    workspace.copy_to(tmp_path / "copy.db")
    write(workspace, "/workspace/a", b"2")
    with Workspace(tmp_path / "copy.db") as copy:
        assert read(copy, "/workspace/a") == b"1"
        write(copy, "/workspace/a", b"3")
    assert read(workspace, "/workspace/a") == b"2"


NAMES = st.sampled_from(["a", "b", "a.b", "a0", "a/", "é"]).map(lambda name: name.strip("/"))
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: "/workspace/" + "/".join(parts))


class Model(RuleBasedStateMachine):
    """A workspace beside a dictionary of what it should hold: bytes, or None for a directory."""

    def __init__(self):
        super().__init__()
        self.workspace = Workspace(":memory:")
        self.holds = {"/workspace": None}

    def parent_is_directory(self, path):
        above = posixpath.dirname(path)
        while above not in self.holds:
            above = posixpath.dirname(above)
        return self.holds[above] is None

    def made(self, path):
        while path not in self.holds:
            self.holds[path] = None
            path = posixpath.dirname(path)

    @rule(path=PATHS, data=st.binary(max_size=20))
    def write(self, path, data):
        good = self.parent_is_directory(path) and self.holds.get(path, b"") is not None
        try:
            write(self.workspace, path, data)
        except GuestError:
            assert not good
        else:
            assert good
            self.made(posixpath.dirname(path))
            self.holds[path] = data

    @rule(path=PATHS)
    def mkdir(self, path):
        good = self.parent_is_directory(path) and self.holds.get(path) is None
        try:
            self.workspace.mkdir(path, mode=0o755, parents=True)
        except GuestError:
            assert not good
        else:
            assert good
            self.made(path)

    @rule(path=PATHS)
    def remove(self, path):
        try:
            self.workspace.remove(path, recursive=True)
        except GuestError:
            assert path not in self.holds
        else:
            gone = [one for one in self.holds if one == path or one.startswith(f"{path}/")]
            assert gone
            for one in gone:
                del self.holds[one]

    @rule(source=PATHS, goal=PATHS)
    def move(self, source, goal):
        try:
            self.workspace.move(source, goal)
        except GuestError:
            return
        assert source in self.holds
        self.holds.pop(goal, None)
        for one in [one for one in self.holds if one == source or one.startswith(f"{source}/")]:
            self.holds[goal + one.removeprefix(source)] = self.holds.pop(one)

    @invariant()
    def it_holds_the_same(self):
        found = {node.path: node for node in self.workspace.walk()}
        assert found.keys() == self.holds.keys()
        for path, data in self.holds.items():
            assert found[path].directory == (data is None)
            if data is not None:
                assert read(self.workspace, path) == data
        whole = sum(len(data) for data in self.holds.values() if data)
        assert self.workspace.used_bytes == whole + NODE_BYTES * (len(self.holds) + 1)

    def teardown(self):
        self.workspace.close()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_a_path_is_cleaned():
    assert cleaned("//workspace/./a/../b/") == "/workspace/b"
    assert cleaned("/../../..") == "/"


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (lambda w: write(w, "/a/new", b""), {"/a"}),
        (lambda w: write(w, "/a/old", b"again"), {"/a"}),
        (lambda w: write(w, "/a/made/new", b""), {"/a", "/a/made"}),
        (lambda w: w.mkdir("/a/b/c", mode=0o755, parents=False), {"/a/b", "/a/b/c"}),
        (lambda w: w.remove("/a/old", recursive=False), {"/a"}),
        (lambda w: w.remove("/a/b", recursive=True), {"/a"}),
        (lambda w: w.move("/a/old", "/a/b/old"), {"/a", "/a/b"}),
        (lambda w: w.move("/a/b", "/b"), {"/", "/a"}),
        (lambda w: read(w, "/a/old"), set()),
    ],
    ids=["write", "overwrite", "parents", "mkdir", "remove", "tree", "move", "out", "read"],
)
def test_a_directory_has_the_time_of_its_last_change(tmp_path, change, changed):
    now = [1]
    with Workspace(tmp_path / "w.db", clock_ns=lambda: now[0]) as workspace:
        write(workspace, "/a/old", b"1")
        workspace.mkdir("/a/b", mode=0o755, parents=False)
        now[0] = 2
        change(workspace)
        found = {node.path for node in workspace.walk() if node.directory and node.mtime_ns == 2}
        assert found | ({"/"} if workspace.stat("/").mtime_ns == 2 else set()) == changed
