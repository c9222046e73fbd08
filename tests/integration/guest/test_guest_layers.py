"""What lies between image and upper, and an image that is one file."""

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

OTHERS = 400_000_000
"""The first id of the sandbox that the files of the layers were another's."""
DETACHED = pytest.mark.skipif(
    tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2]) < (6, 15),
    reason="a mount without a place is copied from Linux 6.15 on",
)


@pytest.fixture
def folder():
    path = Path(tempfile.mkdtemp(prefix="guest-layers-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@contextlib.contextmanager
def given(*layers):
    """Yield the options and descriptors of layers; their files are given to another sandbox's root."""
    opened = []
    try:
        for layer in layers:
            for entry in (layer, *layer.rglob("*")):
                if entry.lstat().st_uid == 0:
                    os.chown(entry, OTHERS, OTHERS, follow_symlinks=False)
            opened.append(os.open(layer, os.O_RDONLY | os.O_DIRECTORY))
        options = [part for one in opened for part in ("--layer-fd", str(one))]
        yield {"options": [*options, "--disk-base", str(OTHERS)], "passed": opened}
    finally:
        for one in opened:
            os.close(one)


def make_layers(image):
    """Return the top layer, the bottom one; each changes what lies below it."""
    folder = image.parent
    (image / "var/of-image").write_text("image")
    (image / "opt/old").mkdir(parents=True)
    (image / "opt/old/hidden").write_text("image")
    top, bottom = folder / "top", folder / "bottom"
    (bottom / "var").mkdir(parents=True)
    (bottom / "opt/old").mkdir(parents=True)
    (bottom / "var/both").write_text("bottom")
    (bottom / "var/of-bottom").write_text("bottom")
    (bottom / "opt/old/new").write_text("bottom")
    os.setxattr(bottom / "opt/old", "user.overlay.opaque", b"y")
    (top / "var").mkdir(parents=True)
    (top / "var/both").write_text("top")
    os.mknod(top / "var/of-image", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    return top, bottom


def test_the_topmost_layer_wins_and_takes_away(open_box, bare_image, folder):
    top, bottom = make_layers(bare_image(folder))
    os.chown(top / "var/both", OTHERS + 7, OTHERS + 8)
    with given(top, bottom) as layers:
        box = open_box(folder=folder, **layers)
    result = box.run("cat /var/both /var/of-bottom; ls /var /opt/old; stat -c %u:%g /var/* /var")
    assert result.code == 0, result
    assert result.stdout.decode().split() == [
        *("topbottom/opt/old:", "new", "/var:", "both", "of-bottom", "tmp"),
        *("7:8", "0:0", "0:0", "0:0"),
    ]


def test_layers_are_never_written(open_box, bare_image, folder):
    top, bottom = make_layers(bare_image(folder))
    with given(top, bottom) as layers:
        before = {str(p): p.lstat() for d in (top, bottom) for p in d.rglob("*")}
        box = open_box(folder=folder, **layers)
        changed = box.run("echo new > /var/both; chmod 600 /var/of-bottom; rm -r /opt/old; ls /opt")
        assert (changed.code, changed.stdout) == (0, b""), changed
        box.close()
        after = {str(p): p.lstat() for d in (top, bottom) for p in d.rglob("*")}
        assert {k: (v.st_mode, v.st_mtime_ns) for k, v in after.items()} == {
            k: (v.st_mode, v.st_mtime_ns) for k, v in before.items()
        }
        again = open_box(folder=folder, **layers)
        assert again.run("cat /var/both; ls /opt").stdout == b"new\n"


def test_nobody_is_left_who_held_the_ids_of_a_disk(open_box, bare_image, folder):
    with given(*make_layers(bare_image(folder))) as layers:
        box = open_box(folder=folder, **layers)
    assert box.run("true").code == 0
    children = Path(f"/proc/{box.launcher.pid}/task/{box.launcher.pid}/children").read_text()
    assert children.split() == [str(box.agent_pid())]


def test_layers_have_a_limit_and_need_ids(agent_binary, folder):
    def told(*options):
        argv = [agent_binary, "launch", "--root", folder, "--state", folder, *options]
        done = subprocess.run(argv, capture_output=True, text=True)
        assert done.returncode == 126
        return done.stderr

    assert "--layer-fd: too many" in told(*["--layer-fd", "0"] * 33)
    assert "need --id-base" in told("--layer-fd", "0")
    assert "needs --disk-fd or --layer-fd" in told("--id-base", "70000", "--disk-base", "1")


def mount_erofs(agent, file):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        argv = [agent, "mount", str(theirs.fileno()), file]
        done = subprocess.run(argv, pass_fds=[theirs.fileno()], capture_output=True, text=True)
        if done.returncode:
            return done.stderr, None
        return "", socket.recv_fds(ours, 1, 1)[1][0]


@pytest.fixture
def erofs(bare_image, folder):
    image = bare_image(folder)
    (image / "etc/told").write_text("by the file")
    os.chown(image / "etc/told", 7, 8)
    file = folder / "image.erofs"
    subprocess.run(["mkfs.erofs", file, image], check=True, capture_output=True)
    shutil.rmtree(image)
    image.mkdir()
    return file


def test_an_image_in_one_file_is_mapped_and_leaves_nothing(agent_binary, open_box, folder, erofs):
    before = Path("/proc/self/mountinfo").read_text()
    fault, image = mount_erofs(agent_binary, erofs)
    assert fault == ""
    try:
        boxes = [open_box(image_fd=image), open_box(image_fd=image)]
        for box in boxes:
            assert box.run("stat -c %u:%g /etc/told; cat /etc/told").stdout == b"7:8\nby the file"
            assert box.run("echo mine > /etc/told && cat /etc/told").stdout == b"mine\n"
            assert not holds(box.agent_pid(), os.fstat(image).st_dev)
    finally:
        os.close(image)
    assert Path("/proc/self/mountinfo").read_text() == before


def holds(pid, device):
    """Whether a process has the root of that file system, with the host's ids, open."""
    found = Path(f"/proc/{pid}/fd").iterdir()
    return any(entry.exists() and entry.stat().st_dev == device for entry in found)


def test_what_is_no_image_is_refused(agent_binary, folder):
    file = folder / "nothing.erofs"
    file.write_bytes(b"\0" * 8192)
    assert mount_erofs(agent_binary, file)[0].startswith("handiwork-guest: erofs: ")
    done = subprocess.run([agent_binary, "mount", "1", file], capture_output=True, text=True)
    assert done.returncode == 126
    argv = [agent_binary, "launch", "--image-fd", "0", "--state", folder]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, "need --id-base" in done.stderr) == (126, True)
