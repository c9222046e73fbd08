"""A control plane whose store of snapshots is away, dies in the middle, or is full."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane_process import BRAINLESS
from handiwork.client.handiwork import Handiwork
from handiwork.model.errors import SandboxUnavailableError
from seaweed import SECRET, Seaweed, seaweed_server
from snapshot_plane import asked, lose, running, text

pytestmark = pytest.mark.timeout(900)


def config_of(server: Seaweed, tmp_path: Path) -> str:
    key = tmp_path / "s3-key"
    key.write_text(SECRET)
    key.chmod(0o600)
    place = server.place
    return (
        "[snapshots]\non_idle = false\nstop_seconds = 1\n[snapshots.s3]\n"
        f'bucket = "{place.bucket}"\nendpoint = "{place.endpoint}"\n'
        f'access_key_id = "{place.access_key_id}"\nsecret_key_file = "{key}"\n'
        "timeout_seconds = 4\n" + BRAINLESS
    )


def test_a_bucket_that_dies_in_the_middle_costs_nothing_that_was_kept(tmp_path: Path) -> None:
    """What was told is there after; what was not is told; with lost files nothing starts meanwhile."""
    disk = tmp_path / "seaweed"
    disk.mkdir()

    async def first(client: Handiwork) -> str:
        box = await client.sandboxes.create()
        await box.exec("echo kept > a")
        await box.snapshot()
        await box.exec("head -c 80000000 /dev/urandom > big")
        killer = threading.Timer(0.4, server.kill)
        killer.start()
        with pytest.raises(SandboxUnavailableError, match=r"check .snapshots. in"):
            await box.snapshot()
        killer.join()
        state = await box.snapshots.state()
        assert "s3://snapshots: cannot" in state.status.failure
        assert [one.number for one in state.snapshots] == [1]
        assert await text(box, "cat a; ls") == "kept\na\nbig"  # it runs on
        await box.sleep()
        await box.wake()  # its own files are there: nobody asks the bucket
        await box.sleep()
        return box.id

    async def away(client: Handiwork) -> None:
        box = await client.sandboxes.get(sandbox_id)
        with pytest.raises(SandboxUnavailableError, match="cannot list"):
            await box.wake()
        assert (await box.refresh()).state.value == "sleeping"

    async def back(client: Handiwork) -> None:
        box = await client.sandboxes.get(sandbox_id)
        assert await text(box, "cat a; ls") == "kept\na"

    with seaweed_server(disk) as server:
        config = config_of(server, tmp_path)
        with running(tmp_path / "plane", config) as plane:
            sandbox_id = asked(plane, first)
            lose(plane, sandbox_id)
            asked(plane, away)
    shutil.copytree(disk, tmp_path / "again")
    with seaweed_server(tmp_path / "again") as server:
        config = config_of(server, tmp_path)
        with running(tmp_path / "plane", config) as plane:
            asked(plane, back)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    if os.geteuid():
        pytest.skip("only root can mount a file system of a size of its own")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_told_and_the_former_snapshot_is_whole(
    tmp_path: Path, small_disk: Path
) -> None:
    config = f'[snapshots]\non_idle = false\ndirectory = "{small_disk}"\n' + BRAINLESS

    async def verb(client: Handiwork) -> None:
        box = await client.sandboxes.create()
        await box.exec("echo kept > a")
        await box.snapshot()
        await box.exec("head -c 30000000 /dev/urandom > big; echo later > a")
        with pytest.raises(SandboxUnavailableError, match="no snapshot of"):
            await box.snapshot()
        assert (await box.snapshots.state()).status.failure
        await box.snapshots.rollback(1, keep_present=False)
        assert await text(box, "cat a; ls") == "kept\na"
        await box.snapshot()  # there is room again for what is small

    with running(tmp_path / "plane", config) as plane:
        asked(plane, verb)
