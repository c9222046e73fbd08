"""WATCH: bounds, and what a guest can do to it."""

import struct

import pytest

PYTHON = "/usr/bin/python3"


def text(value):
    return struct.pack("<I", len(value)) + value


def watch(box, path, recursive=1):
    request_id = next(box.ids)
    box.send(21, request_id, struct.pack("<I", recursive) + text(path.encode()))
    return request_id


def standing(box, path, recursive=1):
    """Watch and return the request and how many directories it covers."""
    request_id = watch(box, path, recursive)
    kind, payload = box.next_of(request_id, timeout=60)
    assert kind == 82
    return request_id, struct.unpack("<I", payload)[0]


def events(box, request_id, until, *, taken=True):
    """Read events until one is told; returns all of them."""
    found = []
    while until not in found:
        kind, payload = box.next_of(request_id, timeout=60)
        assert kind == 83, (kind, found)
        if taken:
            box.send(4, request_id, struct.pack("<I", len(payload)))
        while payload:
            what, directory, length = struct.unpack_from("<III", payload)
            found.append((what, directory, payload[12 : 12 + length].decode()))
            payload = payload[12 + length :]
    return found


def refusal(box, request_id):
    with pytest.raises(Exception) as caught:
        box.next_of(request_id, timeout=60)
    return caught.value.number


def test_one_directory_and_a_tree(box):
    box.run("mkdir -p /workspace/a/b")
    request_id, count = standing(box, "/workspace", recursive=0)
    assert count == 1
    tree, count = standing(box, "/workspace")
    assert count == 3
    box.run("echo x >/workspace/a/b/file; echo x >/workspace/top")
    assert {one[2] for one in events(box, request_id, (1, 0, "top"))} == {"top"}
    assert (1, 0, "a/b/file") in events(box, tree, (1, 0, "top"))


def test_sixteen_and_no_more_and_their_places_come_back(box):
    asked = [standing(box, "/tmp", recursive=0)[0] for _ in range(16)]
    assert refusal(box, watch(box, "/tmp")) == 11
    box.send(15, asked[0])
    assert refusal(box, asked[0]) == 125
    standing(box, "/tmp", recursive=0)


@pytest.mark.parametrize(
    ("path", "number"), [("/none", 2), ("/etc/passwd", 20), ("/proc/self/fd", 13), ("", 2)]
)
def test_what_cannot_be_watched(box, path, number):
    assert refusal(box, watch(box, path)) in (number, 22, 40)


def test_directories_beyond_the_bound_are_told(box):
    script = "import os\nfor n in range(4200): os.makedirs(f'/workspace/many/{n}')\n"
    assert box.run([PYTHON, "-c", script], timeout=60).code == 0
    request_id = watch(box, "/workspace")
    kinds = []
    while 82 not in kinds:
        kind, payload = box.next_of(request_id, timeout=60)
        kinds.append(kind)
        if kind == 83:
            assert struct.unpack_from("<I", payload)[0] == 8
            box.send(4, request_id, struct.pack("<I", len(payload)))
    assert kinds[:1] == [83] or box.next_of(request_id)[0] == 83
    assert box.ask(14)[0] == 75


def test_what_is_too_deep_is_told_and_the_rest_goes_on(box):
    script = (
        "import os\nos.chdir('/workspace')\n"
        "for n in range(12): os.mkdir('d' * 100); os.chdir('d' * 100)\n"
        "open('file', 'w')\n"
    )
    request_id, _ = standing(box, "/workspace")
    assert box.run([PYTHON, "-c", script], timeout=60).code == 0
    box.run("touch /workspace/last")
    found = events(box, request_id, (1, 0, "last"))
    assert any(what == 8 for what, _, _ in found)


def test_links_and_moves_do_not_lead_it_astray(box):
    """A directory exchanged for a link is not followed to where that leads."""
    box.run("mkdir -p /workspace/real /tmp/elsewhere")
    request_id, _ = standing(box, "/workspace")
    box.run("cd /workspace; ln -s /tmp/elsewhere link; rmdir real; ln -s /tmp/elsewhere real")
    box.run("touch /tmp/elsewhere/hidden; touch /workspace/last")
    found = events(box, request_id, (1, 0, "last"))
    assert not any("hidden" in path for _, _, path in found)


def test_nobody_takes_them(box):
    """More than the credit is not sent; the kernel's queue overflows, and the agent serves on."""
    request_id, _ = standing(box, "/tmp")
    script = "import os\nfor n in 'ab': open(n, 'w')\n"
    script += "for n in range(30000): os.chmod('a', 0o600); os.chmod('b', 0o600)\n"
    assert box.run([PYTHON, "-c", script], timeout=50, cwd="/tmp").code == 0
    assert box.ask(14)[0] == 75
    found = events(box, request_id, (7, 0, ""))
    assert len(found) > 1000
    assert len(found) < 60_000


def test_the_same_again_is_told_again(box):
    """What was told may have been acted on already: only within one look is it left out."""
    box.run("touch /workspace/file")
    request_id, _ = standing(box, "/workspace")
    for _ in range(4):
        box.run("echo x >>/workspace/file")
        assert (2, 0, "file") in events(box, request_id, (2, 0, "file"))


def test_it_ends_with_what_it_watches(box):
    box.run("mkdir /workspace/gone")
    request_id, _ = standing(box, "/workspace/gone")
    box.run("rmdir /workspace/gone")
    assert box.next_of(request_id)[0] == 71
