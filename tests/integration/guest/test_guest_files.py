"""Files through the agent: contents, directories, and what a hostile tree can do to those who look at it."""

import os
import stat
import struct

import pytest

REGULAR, DIRECTORY, LINK, OTHER = 1, 2, 3, 4
PARENTS, APPEND, EXCLUSIVE = 1, 2, 4


def refuses(number, call, *args, **kwargs):
    with pytest.raises(Exception) as caught:
        call(*args, **kwargs)
    assert caught.value.number == number


def test_write_and_read_back(box):
    data = os.urandom(3_000_000)
    box.write("/workspace/a/b c/data", data, mode=0o640, flags=PARENTS)
    assert box.read("/workspace/a/b c/data") == data
    assert box.read("/workspace/a/b c/data", offset=2_999_000) == data[-1000:]
    assert box.read("/workspace/a/b c/data", offset=100, limit=70_000) == data[100:70_100]
    assert box.read("/workspace/a/b c/data", offset=1 << 62) == b""
    info = box.stat("/workspace/a/b c/data")
    assert (info["kind"], info["size"], stat.S_IMODE(info["mode"])) == (REGULAR, len(data), 0o640)
    assert list(box.list("/workspace/a/b c")) == ["data"]


def test_write_replaces_whole_files_only(box):
    box.write("/workspace/f", b"old")
    request = next(box.ids)
    path = b"/workspace/f"
    box.send(6, request, struct.pack("<IIIII", 0o644, 0, 0, 0, len(path)) + path)
    box.send(7, request, b"half")
    assert box.ask(14)[0] == 75
    assert box.read("/workspace/f") == b"old"
    box.send(15, request)
    refuses(125, box.next_of, request)
    assert list(box.list("/workspace")) == ["f"]
    refuses(17, box.write, "/workspace/f", b"new", flags=EXCLUSIVE)
    box.write("/workspace/f", b"+", flags=APPEND)
    box.write("/workspace/g", b"+", flags=APPEND | EXCLUSIVE)
    assert (box.read("/workspace/f"), box.read("/workspace/g")) == (b"old+", b"+")
    refuses(21, box.write, "/workspace", b"")
    refuses(2, box.write, "/workspace/none/f", b"")


def test_owner_of_what_is_written(open_box, id_base):
    box = open_box()
    box.write("/workspace/x/y/f", b"", flags=PARENTS, uid=1000, gid=1001)
    for path in ("/workspace/x", "/workspace/x/y", "/workspace/x/y/f"):
        info = box.stat(path)
        assert (info["uid"], info["gid"]) == (1000, 1001)
    host = (box.folder / "state/upper/workspace/x/y/f").stat()
    assert (host.st_uid, host.st_gid) == (id_base + 1000, id_base + 1001)


def test_directories(box):
    assert box.mkdir("/workspace/d", mode=0o700)[0] == 75
    refuses(17, box.mkdir, "/workspace/d")
    refuses(2, box.mkdir, "/workspace/x/y")
    box.mkdir("/workspace/x/y/", parents=True)
    box.mkdir("/workspace/x/y", parents=True)
    box.write("/workspace/x/f", b"")
    box.run("ln -s /etc/passwd /workspace/x/l; mkfifo /workspace/x/p")
    kinds = {name: kind for name, (kind, _, _) in box.list("/workspace/x").items()}
    assert kinds == {"y": DIRECTORY, "f": REGULAR, "l": LINK, "p": OTHER}
    assert len(box.list("/workspace/x", limit=2)) == 2
    assert box.stat("/workspace/x/l")["kind"] == LINK
    assert box.stat("/workspace/x/l", follow=True)["kind"] == REGULAR
    assert box.realpath("/workspace/x/../x/l") == "/etc/passwd"
    assert box.realpath("/") == "/"
    box.move("/workspace/x/f", "/workspace/f2")
    assert sorted(box.list("/workspace")) == ["d", "f2", "x"]
    refuses(2, box.move, "/workspace/none", "/workspace/f3")
    refuses(20, box.list, "/workspace/f2")


def test_a_large_directory_is_listed_and_removed(box):
    box.run("mkdir /tmp/many && cd /tmp/many && seq 20000 | xargs touch")
    assert len(box.list("/tmp/many")) == 20_000
    box.remove("/tmp/many", recursive=True)
    refuses(2, box.stat, "/tmp/many")


def test_remove(box):
    box.run("mkdir -p /workspace/t/a/b/c && touch /workspace/t/a/f && echo keep > /workspace/keep")
    box.run("ln -s /workspace/keep /workspace/t/a/b/l; ln -s /workspace /workspace/t/up")
    refuses(39, box.remove, "/workspace/t")
    box.remove("/workspace/t", recursive=True)
    box.run("mkdir /workspace/empty; ln -s /workspace /workspace/link")
    box.remove("/workspace/empty")
    box.remove("/workspace/link", recursive=True)
    assert list(box.list("/workspace")) == ["keep"]
    refuses(2, box.remove, "/workspace/none", recursive=True)
    refuses(22, box.remove, "/")


def test_removed_directories_of_the_image_stay_away(open_box):
    box = open_box()
    box.remove("/var", recursive=True)
    box.mkdir("/var")
    assert box.list("/var") == {}


def test_too_deep_a_tree_is_refused_and_harmless(box):
    script = "import os\nos.chdir('/tmp')\nfor _ in range(400):\n os.mkdir('d'); os.chdir('d')"
    assert box.run(["python3", "-c", script]).code == 0
    refuses(36, box.remove, "/tmp/d", recursive=True)
    assert box.run("rm -rf /tmp/d").code == 0


def test_links_swapped_under_a_removal_lead_nowhere(box):
    box.run("mkdir /workspace/precious && touch /workspace/precious/$(seq -s ' ' 1) ")
    box.write("/workspace/precious/file", b"kept")
    script = """
import os
os.chdir("/tmp")
while True:
    try:
        os.makedirs("tree/a/b", exist_ok=True)
        os.rename("tree/a", "tree/old")
        os.symlink("/workspace/precious", "tree/a")
    except OSError:
        pass
    try:
        os.unlink("tree/a")
        os.rename("tree/old", "tree/a")
    except OSError:
        pass
"""
    request = box.start(["python3", "-c", script], timeout_ms=3000)
    answers = set()
    for _ in range(200):
        try:
            box.remove("/tmp/tree", recursive=True)
        except Exception as error:
            answers.add(error.number)
    assert answers <= {2, 16, 20, 39}
    assert box.result(request).flags == 1
    assert box.read("/workspace/precious/file") == b"kept"


def test_special_files_block_nobody(box):
    box.run("mkfifo /workspace/fifo; ln -s /dev/zero /workspace/zero; ln -s loop /workspace/loop")
    refuses(22, box.read, "/workspace/fifo")
    refuses(22, box.write, "/workspace/fifo", b"x", flags=APPEND)
    refuses(22, box.read, "/workspace/zero")
    refuses(40, box.read, "/workspace/loop")
    refuses(21, box.read, "/workspace")
    refuses(22, box.read, "relative")
    refuses(22, box.read, "/a\0b")
    box.write("/workspace/fifo", b"replaced")
    assert box.read("/workspace/fifo") == b"replaced"


@pytest.mark.parametrize(
    "target", ["/proc/self/mem", "/proc/1/environ", "/proc/self/fd/3", "/proc/1/root"]
)
def test_planted_links_do_not_reach_the_agent(box, target):
    box.run(["ln", "-s", target, "/workspace/link"])
    for call in (box.read, box.list, box.realpath):
        with pytest.raises(Exception) as caught:
            call("/workspace/link")
        assert caught.value.number in (13, 20, 40)
    with pytest.raises(Exception) as caught:
        box.write("/workspace/link", b"x", flags=APPEND)
    assert caught.value.number in (22, 40)
    with pytest.raises(Exception) as caught:
        box.write("/workspace/link/x", b"x")
    assert caught.value.number in (13, 20, 40)
    assert box.ask(14)[0] == 75


def test_a_lease_does_not_hold_the_agent_up(open_box):
    box = open_box()
    box.write("/tmp/leased", b"x", mode=0o666)
    script = "import fcntl,signal,sys,time\nsignal.signal(29,lambda *a: None)\nf=open('/tmp/leased','r+')\nfcntl.fcntl(f,fcntl.F_SETLEASE,fcntl.F_WRLCK)\nprint('leased',flush=True)\ntime.sleep(20)\ntime.sleep(20)"
    request = box.start(["python3", "-c", script])
    while box.next_of(request)[0] != 66:
        pass
    refuses(11, box.read, "/tmp/leased")
    box.send(3, request, struct.pack("<i", 9))
    box.result(request)


def test_a_read_waits_for_credit_and_ends_when_cancelled(box):
    box.run("head -c 4000000 /dev/zero > /tmp/big")
    request = next(box.ids)
    path = b"/tmp/big"
    box.send(5, request, struct.pack("<QQI", 0, 0, len(path)) + path)
    got = 0
    while got < 262_144:
        kind, payload = box.next_of(request)
        assert kind == 70
        got += len(payload)
    assert got == 262_144
    assert box.ask(14)[0] == 75
    assert not box.kept.get(request)
    box.send(15, request)
    refuses(125, box.next_of, request)
