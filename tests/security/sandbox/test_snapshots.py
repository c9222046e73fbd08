"""Snapshots of trees that a guest made against whoever reads them, and what is made of these again."""

import asyncio
import os
import stat
from pathlib import Path

import pytest

from attacks.world import World, held, python, told
from generation_taking import make, take
from handiwork.store.object_blobs import ObjectBlobs
from snapshot_child import generations_in

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="module")]

SECRET = b"of the host, and of nobody inside"
TAKE_SECONDS = 120
ROUNDS = 3
NAMES = ("first", "second", "third")
TREE = """
import os, socket, stat
os.chdir("/workspace")
os.mkfifo("pipe")
try: os.link("pipe", "pipe-again")
except OSError: os.mkfifo("pipe-again")  # an old gVisor links no pipes
one = socket.socket(socket.AF_UNIX); one.bind("listens")
os.symlink({secret!r}, "to-host"); os.symlink("/proc/1/root", "to-root"); os.symlink("self", "self")
os.makedirs("d/" * 60); os.symlink("../" * 20 + {secret!r}[1:], "d/upwards")
with open(b"odd-\\xff\\n", "w") as file: file.write("odd")
with open("sparse", "wb") as file: file.truncate(1 << 30); file.seek(1 << 29); file.write(b"amid")
made = []
for name, kind in (("character", stat.S_IFCHR), ("block", stat.S_IFBLK)):
    try: os.mknod(name, kind | 0o666, os.makedev(1, 3)); made.append(name)
    except OSError: pass
print("made", *made)
"""
SWAPPING = """
import itertools, os, threading, time
os.makedirs("/workspace/swapped"); os.chdir("/workspace/swapped")
def swap(number):
    name, other = f"s{{number}}", f"t{{number}}"
    for turn in itertools.count():
        try:
            if turn % 4 == 0: os.symlink({secret!r}, other)
            elif turn % 4 == 1: os.mkfifo(other)
            elif turn % 4 == 2: os.mkdir(other)
            else:
                with open(other, "w") as file: file.write("own")
            if os.path.isdir(name) and not os.path.islink(name): os.rmdir(name)
            if turn % 4 == 2 and os.path.lexists(name): os.unlink(name)
            os.rename(other, name)
        except OSError: pass
def count():
    files = [os.open(name, os.O_WRONLY | os.O_CREAT) for name in ("first", "second", "third")]
    for turn in itertools.count():
        for file in files: os.pwrite(file, b"%012d" % turn, 0)
for number in range(4): threading.Thread(target=swap, args=(number,), daemon=True).start()
threading.Thread(target=count, daemon=True).start()
while not (os.path.exists("third") and os.path.getsize("third")): time.sleep(0.01)
print("swapping", flush=True)
"""


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """A file of the host that its root reads; nothing of that path is inside."""
    path = tmp_path_factory.mktemp("host") / "secret"
    path.write_bytes(SECRET)
    return path


async def made_again(world: World, sandbox_id: str, directory: Path):
    """Take a generation and make it again; returns it, and where."""
    generations = generations_in(ObjectBlobs.in_directory(directory / "blobs"))
    async with asyncio.timeout(TAKE_SECONDS):
        manifest = await take(world.driver, generations, sandbox_id)
    target = directory / f"number-{manifest.head.number}"
    return manifest, await asyncio.to_thread(make, generations, manifest, target)


def walked(tree: Path):
    """Return each entry of a tree with its mode; no link is followed."""
    found = {}
    for where, directories, names in os.walk(os.fsencode(tree)):
        for name in directories + names:
            path = os.path.join(where, name)  # noqa: PTH118  names of any bytes
            found[path] = os.lstat(path).st_mode
    return found


def assert_of_the_guest_alone(tree: Path) -> None:
    """No socket, no device but what stands for a removed file, and nothing of the host's secret."""
    for path, mode in walked(tree).items():
        assert not stat.S_ISSOCK(mode), path
        assert not stat.S_ISBLK(mode), path
        assert not stat.S_ISCHR(mode) or os.lstat(path).st_rdev == 0, path
        if stat.S_ISREG(mode):
            with open(path, "rb") as file:  # noqa: PTH123  names of any bytes
                assert SECRET not in file.read(1 << 20), path


async def test_what_is_no_file_leads_nowhere(world, secret, tmp_path):
    box = await world.sandbox()
    made, *devices = await told(box, python(TREE.format(secret=str(secret))))
    assert made == "made"
    manifest, tree = await made_again(world, box.id, tmp_path)
    skipped = manifest.head.skipped
    for name in devices:
        assert f"/workspace/{name} is a device" in skipped
    assert_of_the_guest_alone(tree)
    workspace = tree / "workspace"
    if world.driver.tier != "gvisor":  # there neither is a file of the host's
        assert "/workspace/listens is a socket" in skipped
        for name in ("pipe", "pipe-again"):
            assert stat.S_ISFIFO((workspace / name).lstat().st_mode)
    assert (workspace / "to-host").readlink() == secret  # the control: it is there, as a link
    assert secret.read_bytes() == SECRET
    assert (workspace / os.fsdecode(b"odd-\xff\n")).read_text() == "odd"
    sparse = (workspace / "sparse").stat()
    assert (sparse.st_size, sparse.st_blocks < 1 << 12) == (1 << 30, True)
    await world.driver.destroy(box.id)
    await world.healthy()


async def test_what_changes_all_the_time_is_taken_as_it_was_at_one_moment(world, secret, tmp_path):
    """Links to the host, pipes, directories and files come and go in each other's place meanwhile."""
    box = await world.sandbox()
    counts = []
    process, words = await held(box, SWAPPING.format(secret=str(secret)))
    assert words == ["swapping"]
    for _ in range(ROUNDS):
        _, tree = await made_again(world, box.id, tmp_path)
        assert_of_the_guest_alone(tree)
        swapped = tree / "workspace/swapped"
        assert 3 < len(walked(swapped)) <= 11
        first, second, third = (int((swapped / one).read_text()) for one in NAMES)
        assert first >= second >= third >= first - 1  # each is written after the one before
        counts.append(first)
        await asyncio.sleep(0.3)
    assert counts[-1] > counts[0]  # the control: they were written to all the time
    process.close()
    await world.driver.destroy(box.id)
    await world.healthy()
