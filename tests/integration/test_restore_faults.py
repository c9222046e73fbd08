"""What is killed, or has no room, while files are put back: they are of one generation, whole, or as before."""

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane_process import BRAINLESS, ControlPlane
from handiwork.client.handiwork import Handiwork
from handiwork.client.sandboxes import Sandbox
from handiwork.model.errors import HandiworkError
from snapshot_plane import USUAL, asked, lose, running, started, text

CONFIG = (
    "[sessions]\nidle_seconds = 1.0\nlease_seconds = 4\n"
    "[sandbox.pool]\nready = 0\n[snapshots]\non_idle = false\n"
)
DRIVEN = CONFIG + BRAINLESS
FILES, FILE_KB = 120, 200
MOMENTS_SECONDS = (0.01, 0.06, 0.12, 0.2, 0.35, 20.0)
"""So long after the question the control plane is killed, at the latest: from before the first file on."""
CHANGE = f"""
for number in $(seq {FILES}); do
    (printf %08d {{generation}}; head -c {FILE_KB}000 /dev/urandom) >f$number
done; sha256sum f* >sums; sync
"""
HEADS = "sha256sum -c --quiet sums && head -qc 8 f* | fold -w 8 | sort | uniq -c"
DISK_MIB = 400
pytestmark = [pytest.mark.timeout(600), pytest.mark.root]


async def make(client: Handiwork) -> str:
    """Make one with two generations, the second of which is what it has now."""
    box = await client.sandboxes.create()
    for generation in (1, 2):
        assert await text(box, CHANGE.format(generation=generation)) == ""
        assert (await box.snapshot()).number == generation
    return box.id


async def generation_of(box: Sandbox) -> int:
    """Return which its files are of; all of them are there, and of one."""
    count, generation = (await text(box, HEADS)).split()
    assert int(count) == FILES
    return int(generation)


def is_made_anew(plane: ControlPlane, sandbox_id: str) -> bool:
    """Whether a state lies beside the sandbox's own, or its own is not there yet."""
    states = plane.data / "sandboxes/sandboxes"
    return {one.name for one in states.iterdir()} != {sandbox_id}


async def killed_amid(plane: ControlPlane, question: str, sandbox_id: str, seconds: float) -> bool:
    """Ask it and kill the control plane after so many seconds; returns whether it was putting files back."""
    async with Handiwork(socket=plane.socket) as client:
        box = await client.sandboxes.get(sandbox_id)
        asking = asyncio.ensure_future(
            box.snapshots.rollback(1, keep_present=False) if question == "rollback" else box.wake()
        )
        await asyncio.wait([asking], timeout=seconds)
        plane.kill()
        amid = is_made_anew(plane, sandbox_id)
        with contextlib.suppress(HandiworkError, OSError):
            await asking
        return amid


@pytest.mark.slow
@pytest.mark.parametrize("question", ["rollback", "wake"])
def test_killed_at_any_moment_its_files_are_of_one_generation(
    tmp_path: Path, question: str
) -> None:
    """A rollback keeps what is there or has all of the other; what was lost is whole, or not there yet."""

    async def state(client: Handiwork) -> int:
        box = await client.sandboxes.get(sandbox_id)
        found = await generation_of(box)
        if found == 1:  # so that the next one has something to do
            await box.snapshots.rollback(2, keep_present=False)
        await box.sleep()
        return found

    plane = started(tmp_path, DRIVEN)
    try:
        sandbox_id = asked(plane, make)
        asked(plane, state)
    finally:
        plane.kill()
    amid, seen = 0, list[int]()
    for seconds in MOMENTS_SECONDS:
        if question == "wake":
            lose(plane, sandbox_id)
        plane = started(tmp_path, DRIVEN)
        try:
            amid += asyncio.run(killed_amid(plane, question, sandbox_id, seconds))
        finally:
            plane.kill()
        with running(tmp_path, DRIVEN) as again:
            seen.append(asked(again, state))
        assert not is_made_anew(plane, sandbox_id)  # nothing is left of what was not ended
    assert amid >= 2  # the control: some were killed in the midst
    assert set(seen) <= ({1, 2} if question == "rollback" else {2}), seen
    assert seen[-1] == (1 if question == "rollback" else 2)  # the control: it gets to its end


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of this host that is soon full."""
    image, place = tmp_path / "host.img", tmp_path / "host"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_MIB << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_a_host_without_room_keeps_what_is_there(small_disk: Path) -> None:
    """The disk of this host is full, not the sandbox's own: it is told, and nothing is half put back."""

    async def verb(client: Handiwork) -> None:
        box = await client.sandboxes.get(sandbox_id)
        await box.sleep()
        fill(small_disk, leave_mib=8)
        with pytest.raises(HandiworkError):
            await box.snapshots.rollback(1, keep_present=False)
        assert await generation_of(box) == 2
        await box.sleep()
        (small_disk / "filling").unlink()
        await box.snapshots.rollback(1, keep_present=False)
        assert await generation_of(box) == 1

    with running(small_disk / "plane", DRIVEN, USUAL) as plane:
        sandbox_id = asked(plane, make)
        asked(plane, verb)


def fill(place: Path, *, leave_mib: int) -> None:
    """Take all room but so much."""
    chunk = bytes(1 << 20)
    with (place / "filling").open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(chunk) == len(chunk):
                continue
        file.truncate(max(0, file.tell() - (leave_mib << 20)))
