"""`kill -9` at every step of putting files back: a tracer ends the process at one system call after the other.

The steps are not ours to list: a run that is not killed is traced first, and tells which calls change
anything on this host. `test_restore_faults.py` does the same by the clock, to a whole control plane.
"""

import asyncio
import collections
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from generation_taking import take
from handiwork.model.errors import NotFoundError
from handiwork.model.sandbox import ExecRequest, Limits, SandboxSpec
from handiwork.sandboxes.protocol import Sandbox
from handiwork.store.object_blobs import ObjectBlobs
from remake_child import DISK_MIB, open_driver, remake
from snapshot_child import ID, generations_in

CHILD = Path(__file__).parents[1] / "remake_child.py"
CALLS = (
    *(
        "mkdir",
        "mkdirat",
        "rename",
        "renameat2",
        "link",
        "linkat",
        "symlinkat",
        "unlink",
        "unlinkat",
    ),
    *("rmdir", "ftruncate", "fallocate", "fchown", "fchownat", "lchown", "utimensat", "fchmod"),
    *(
        "fsync",
        "fdatasync",
        "syncfs",
        "pwrite64",
        "mount",
        "umount2",
        "move_mount",
        "mount_setattr",
        "ioctl",
    ),
)
"""What changes files, names and mounts, or has them last."""
OF_EACH = 3
"""So many of a call that is made more often: the first, one amid, the last."""
VARIED = 20
"""Two runs write a database in a number of pieces that differs by less than one in so many."""
SECONDS = 60
FILES = """
cd /workspace; rm -rf ./*; mkdir -p a/b; echo {generation} > a/b/one; ln a/b/one two; ln -s two three
for number in $(seq 12); do (echo {generation}; head -c 30000 /dev/urandom) > f$number; done
sha256sum a/b/one f* > sums; sync
"""
HELD = "cd /workspace; sha256sum -c --quiet sums && readlink three && head -qn 1 f* a/b/one two three | sort | uniq -c"
SPEC = SandboxSpec(id=ID, limits=Limits(disk_mib=DISK_MIB))
pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]


async def fill(box: Sandbox, generation: int) -> None:
    """Have it hold files of every kind that it can, all of one generation."""
    if box.languages:
        for number in range(12):
            content = b"%d\n" % generation + os.urandom(1 << 18)
            await box.files.write(f"/workspace/f{number}", content)
        return
    script = FILES.format(generation=generation)
    done = await box.exec(ExecRequest(argv=("sh", "-c", script), cwd="/"))
    assert done.exit_code == 0, done


async def held(box: Sandbox) -> int:
    """Return of which generation all of its files are."""
    if box.languages:
        files = [await box.files.read(f"/workspace/f{number}") for number in range(12)]
        assert {len(content) for content in files} == {2 + (1 << 18)}
        (generation,) = {int(content[:1]) for content in files}
        return generation
    done = await box.exec(ExecRequest(argv=("sh", "-c", HELD), cwd="/"))
    link, count, told = done.stdout.decode().split()
    assert (done.exit_code, link, count) == (0, "two", "15"), done
    return int(told)


async def generation_of(directory: Path, tier: str) -> int:
    """Open it as the next start would; return of which generation its files are, 0 where it has none."""
    driver = open_driver(directory, tier)
    assert await driver.leftovers() in ([], [ID])
    left = [one for one in directory.glob("*/.*") if one.parent.name in {"sandboxes", "isolate"}]
    assert left == [], "something half made is left"
    try:
        box = await driver.restore(SPEC)
    except NotFoundError:
        return 0
    try:
        return await held(box)
    finally:
        await driver.sleep(ID)


async def prepared(directory: Path, tier: str) -> None:
    """Take two generations of one that has the second."""
    driver = open_driver(directory, tier)
    generations = generations_in(ObjectBlobs.in_directory(directory / "blobs"))
    box = await driver.create(SPEC)
    for generation in (1, 2):
        await fill(box, generation)
        await take(driver, generations, ID)
    await driver.sleep(ID)


def traced(directory: Path, tier: str, options: list[str]) -> tuple[int, str]:
    """Put the first generation back under a tracer; returns how the process ended, and the tracer's log."""
    log = directory / "trace"
    child = subprocess.Popen(
        [sys.executable, CHILD, directory, tier, "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        given = ["strace", "-f", "-o", log, "-p", str(child.pid), *options]
        with subprocess.Popen(given, stderr=subprocess.PIPE) as tracer:
            assert tracer.stderr is not None
            assert b"attached" in tracer.stderr.readline()
            child.stdin.write(b"x")
            child.stdin.close()
            try:
                child.wait(SECONDS)
            finally:
                child.kill()
            tracer.wait(SECONDS)
    return child.returncode, log.read_text()


def steps(log: str) -> Iterator[tuple[str, int]]:
    """Yield (call, which of its kind): they are counted by thread, as the tracer counts them."""
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for line in log.splitlines():
        thread, _, rest = line.partition(" ")
        call, bracket, _ = rest.strip().partition("(")
        if bracket and call in CALLS:
            counts[thread, call] += 1
    most = {call: 0 for _, call in counts}
    for (_, call), count in counts.items():
        most[call] = max(most[call], count)
    for call, count in sorted(most.items()):
        last = count - count // VARIED
        yield from ((call, which) for which in sorted({1, (count + 1) // 2, last})[:OF_EACH])


@pytest.mark.parametrize("there", [True, False], ids=["over files", "files that are lost"])
@pytest.mark.parametrize("tier", ["namespace", "isolate"])
async def test_killed_at_any_step_the_files_are_of_before_or_after(
    tmp_path: Path, tier: str, there: bool
) -> None:
    trace = ["-e", f"trace={','.join(CALLS)}"]
    await prepared(tmp_path, tier)
    before = await reset(tmp_path, tier, there)
    code, log = await asyncio.to_thread(traced, tmp_path, tier, trace)
    assert code == 0
    assert await generation_of(tmp_path, tier) == 1, "the control: it gets to its end"
    found = list(steps(log))
    assert {"mkdir", "fsync"} <= {call for call, _ in found}
    seen: collections.Counter[int] = collections.Counter()
    for call, which in found:
        await reset(tmp_path, tier, there)
        inject = ["-e", f"inject={call}:signal=SIGKILL:when={which}"]
        code, _ = await asyncio.to_thread(traced, tmp_path, tier, [*trace, *inject])
        generation = await generation_of(tmp_path, tier)
        assert generation in (before, 1), (call, which)
        assert code == -signal.SIGKILL, (call, which)
        seen[generation] += 1
    # The controls: it was killed on both sides of the one step that counts.
    assert seen[before] > 3, seen
    assert seen[1], seen


async def reset(directory: Path, tier: str, there: bool) -> int:
    """Have it be of the second generation, or not there; returns which."""
    driver = open_driver(directory, tier)
    if not there:
        await driver.destroy(ID)
        return 0
    await remake(driver, directory, 2)
    return 2
