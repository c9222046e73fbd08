"""The copy of the workspace that bash has: what the host has before a run, what bash left after it."""

import base64
import posixpath

import bashkit
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from handiwork.sandboxes.isolate.python_cell import bash_files
from handiwork.sandboxes.isolate.python_cell.bash_files import Copy
from handiwork.sandboxes.isolate.python_cell.calls import CallError

HOME = "/workspace"


class Host:
    """A workspace as the calls of a cell know it."""

    def __init__(self):
        self.files = {}  # path: (version, bytes, mode), None for a directory
        self.files[HOME] = None
        self.version = 0
        self.calls = []
        self.full = False
        self.more = False

    def put(self, path, data=None, mode=0o644):
        above = posixpath.dirname(path)
        if above not in ("/", *self.files):
            self.put(above)
        self.version += 1
        self.files[path] = None if data is None else (self.version, data, mode)

    def drop(self, path):
        for one in [name for name in self.files if name == path or name.startswith(f"{path}/")]:
            del self.files[one]

    def ask(self, name, given):
        self.calls.append((name, given.get("path")))
        if name == "workspace.tree":
            return {
                "entries": [[path, *self.told(path)] for path in sorted(self.files)],
                "more": self.more,
            }
        if name == "workspace.readBytes":
            return {"$bytes": base64.b64encode(self.files[given["path"]][1]).decode()}
        if self.full and name != "workspace.delete":
            raise CallError("ToolFailedError", "the workspace is full")
        if name == "workspace.write":
            self.put(given["path"], base64.b64decode(given["content"]["$bytes"]), given["mode"])
        elif name == "workspace.mkdir":
            self.put(given["path"])
        else:
            assert (name, given) == ("workspace.delete", {"path": given["path"]})
            if any(path.startswith(f"{given['path']}/") for path in self.files):
                raise CallError("ToolFailedError", "the directory is not empty")
            self.drop(given["path"])
        return None

    def told(self, path):
        found = self.files[path]
        return (0, 0, 0o755) if found is None else (found[0], len(found[1]), found[2])

    @property
    def contents(self):
        return {path: found and found[1:] for path, found in self.files.items()}


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def bash():
    return bashkit.Bash(cwd=HOME, profile=bashkit.ExecutionProfile.Interactive)


@pytest.fixture
def copy(host, bash):
    return Copy(bash.fs(), host.ask)


def written(host):
    return [call for call in host.calls if call[0] not in ("workspace.tree", "workspace.readBytes")]


def test_what_the_host_has_is_seen(host, bash, copy):
    host.put("/workspace/a/b", b"\xff\x00", 0o755)
    host.put("/tmp/t", b"1")
    assert copy.pull() == []
    done = bash.execute_sync("od -An -tx1 a/b; [ -x a/b ] && cat /tmp/t")
    assert (done.stdout.split(), done.exit_code) == (["ff", "00", "1"], 0)
    assert copy.push() == []
    assert written(host) == []


@pytest.mark.parametrize(
    ("script", "changes"),
    [
        ("echo 1 > new", {"/workspace/new": (b"1\n", 0o644)}),
        ("printf '\\xff\\xfe' > old", {"/workspace/old": (b"\xff\xfe", 0o644)}),
        ("chmod 700 old", {"/workspace/old": (b"old", 0o700)}),
        ("mkdir -p x/y", {"/workspace/x": None, "/workspace/x/y": None}),
        ("rm old", {"/workspace/old": ...}),
        ("rm -r dir", {"/workspace/dir": ..., "/workspace/dir/in": ...}),
        ("mv old moved", {"/workspace/old": ..., "/workspace/moved": (b"old", 0o644)}),
        ("rm old; mkdir old", {"/workspace/old": None}),
        ("rm -r dir; echo f > dir", {"/workspace/dir": (b"f\n", 0o644), "/workspace/dir/in": ...}),
        ("echo t > /tmp/t", {"/tmp": None, "/tmp/t": (b"t\n", 0o644)}),
        ("cat old; ls -R; cd dir; X=1", {}),
        ("echo same > /dev/null", {}),
    ],
)
def test_what_bash_left_is_what_the_host_has(host, bash, copy, script, changes):
    host.put("/workspace/old", b"old")
    host.put("/workspace/dir/in", b"in")
    before = host.contents
    copy.pull()
    assert bash.execute_sync(script).exit_code == 0
    assert copy.push() == []
    expected = {path: value for path, value in {**before, **changes}.items() if value is not ...}
    assert host.contents == expected
    host.calls.clear()
    copy.pull()
    copy.push()
    assert written(host) == []
    assert [call for call in host.calls if call[0] == "workspace.readBytes"] == []


def test_what_others_changed_meanwhile_is_seen_by_the_next_run(host, bash, copy):
    host.put("/workspace/a", b"one")
    host.put("/workspace/gone/x", b"x")
    copy.pull()
    host.put("/workspace/a", b"two")  # of the same size
    host.drop("/workspace/gone")
    copy.pull()
    assert bash.execute_sync("cat a; ls").stdout == "twoa\n"
    host.drop("/workspace/a")
    host.put("/workspace/a/in", b"in")
    copy.pull()
    assert bash.execute_sync("cat a/in").stdout == "in"
    assert copy.push() == []
    assert written(host) == []


def test_what_cannot_be_saved_is_told_and_tried_again(host, bash, copy):
    host.put("/workspace/a", b"1")
    copy.pull()
    host.full = True
    bash.execute_sync("echo 2 > a; echo n > new; mkdir d")
    told = copy.push()
    assert sorted(told) == [
        *("[not saved: /workspace/a: the workspace is full]",),
        *("[not saved: /workspace/d: the workspace is full]",),
        *("[not saved: /workspace/new: the workspace is full]",),
    ]
    host.full = False
    copy.pull()
    assert copy.push() == []
    assert host.contents["/workspace/a"] == (b"2\n", 0o644)
    assert host.contents["/workspace/new"] == (b"n\n", 0o644)
    assert host.contents["/workspace/d"] is None


def test_what_is_too_large_is_not_shown_and_stays(host, bash, copy, monkeypatch):
    monkeypatch.setattr(bash_files, "FILE_BYTES", 10)
    monkeypatch.setattr(bash_files, "COPY_BYTES", 15)
    host.put("/workspace/a", b"x" * 11)
    host.put("/workspace/b", b"x" * 2)
    host.put("/workspace/c", b"x" * 3)
    assert copy.pull() == [
        "[not shown here, for they are too large or too many: /workspace/a, /workspace/c]"
    ]
    assert bash.execute_sync("ls").stdout == "b\n"
    assert copy.pull() == []  # told once
    assert copy.push() == []
    assert set(host.files) == {HOME, *(f"/workspace/{name}" for name in "abc")}


def test_links_are_told_of_once(host, bash, copy):
    copy.pull()
    bash.execute_sync("echo 1 > f; ln -s f l")
    assert copy.push() == ["[symbolic links, which last as long as this shell: /workspace/l]"]
    assert copy.push() == []
    assert set(host.files) == {HOME, "/workspace/f"}


def test_that_there_are_more_is_told(host, copy):
    host.more = True
    assert copy.pull() == ["[there are more files than are shown here]"]


NAMES = st.sampled_from(["a", "b", "d/a", "d/e/b"])


class Both(RuleBasedStateMachine):
    """The host and bash change the same few paths in turns; after each turn both have the same."""

    def __init__(self):
        super().__init__()
        self.host = Host()
        self.bash = bashkit.Bash(cwd=HOME, profile=bashkit.ExecutionProfile.Interactive)
        self.copy = Copy(self.bash.fs(), self.host.ask)

    @rule(name=NAMES, data=st.binary(max_size=3))
    def host_writes(self, name, data):
        self.clear(f"{HOME}/{name}")
        self.host.put(f"{HOME}/{name}", data)

    @rule(name=NAMES)
    def host_drops(self, name):
        self.host.drop(f"{HOME}/{name}")

    def clear(self, path):
        above = posixpath.dirname(path)
        while above != HOME:
            if self.host.files.get(above) is not None:
                self.host.drop(above)
            above = posixpath.dirname(above)
        self.host.drop(path)

    @rule(
        script=st.sampled_from(
            [
                *("echo 1 > a", "echo 2 > a; echo 3 >> b", "rm -rf d", "rm -rf d; mkdir -p d/e"),
                *(
                    "mkdir -p d/e; echo x > d/e/b",
                    "mv a b",
                    "rm -rf a; mkdir a",
                    "rm -rf b",
                    "true",
                ),
                *("cp -r d f", "chmod 700 a", "rm -rf d; echo d > d", "touch a"),
            ]
        )
    )
    def bash_runs(self, script):
        self.copy.pull()
        self.bash.execute_sync(script)
        assert self.copy.push() == []
        seen = {
            path: stamp.kind for path, stamp in self.copy._walk() if path.startswith(f"{HOME}/")
        }
        had = {
            path: "directory" if found is None else "file"
            for path, found in self.host.files.items()
            if path != HOME
        }
        assert seen == had

    @invariant()
    def contents_are_the_same(self):
        self.copy.pull()
        for path, found in self.host.files.items():
            if found is not None:
                assert self.bash.fs().read_file(path) == found[1]


TestBoth = Both.TestCase
TestBoth.settings = settings(stateful_step_count=12, deadline=None)


def test_what_was_not_shown_stays_with_its_directory(host, bash, copy, monkeypatch):
    monkeypatch.setattr(bash_files, "FILE_BYTES", 10)
    host.put("/workspace/d/big", b"x" * 11)
    host.put("/workspace/d/s", b"s")
    copy.pull()
    bash.execute_sync("mv d e")
    (told,) = copy.push()
    assert told == "[not saved: /workspace/d: the directory is not empty]"
    assert host.contents["/workspace/d/big"] == (b"x" * 11, 0o644)
    assert host.contents["/workspace/e/s"] == (b"s", 0o644)
    assert "/workspace/d/s" not in host.files


def test_what_the_host_writes_goes_through_no_link_of_the_shell(host, bash, copy):
    host.put("/workspace/k", b"k")
    host.put("/workspace/n", b"precious")
    host.put("/workspace/real/x", b"x")
    copy.pull()
    bash.execute_sync("rm k; ln -s n k; rm -r real; mkdir other; ln -s other real")
    copy.push()
    host.put("/workspace/k", b"written")
    host.put("/workspace/real/y", b"y")
    copy.pull()
    bash.execute_sync(":")
    copy.push()
    assert host.contents["/workspace/n"] == (b"precious", 0o644)
    assert host.contents["/workspace/k"] == (b"written", 0o644)
    assert not [path for path in host.files if path.startswith("/workspace/other/")]


@pytest.mark.parametrize(
    "script",
    ["cp -p a2 a1", "mv a2 a1", "echo BBBB > a1; touch -d @5 a1"],
)
def test_bytes_that_changed_are_written_whatever_their_time(host, bash, copy, script):
    copy.pull()
    bash.execute_sync("echo AAAA > a1; echo BBBB > a2; touch -d @5 a1 a2")
    copy.push()
    copy.pull()
    bash.execute_sync(script)
    assert copy.push() == []
    assert host.contents["/workspace/a1"][0] == b"BBBB\n"


def test_a_link_that_went_with_its_directory_stands_in_no_way(host, bash, copy):
    host.put("/workspace/d/k", b"k")
    copy.pull()
    bash.execute_sync("rm d/k; ln -s /etc/hosts d/k")
    copy.push()
    host.drop("/workspace/d")
    host.put("/workspace/d/k", b"again")
    copy.pull()
    bash.execute_sync(":")
    copy.push()
    copy.pull()
    assert bash.execute_sync("cat d/k").stdout == "again"
    assert host.contents["/workspace/d/k"] == (b"again", 0o644)
