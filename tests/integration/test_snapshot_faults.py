"""What is killed or torn while a snapshot is taken: what was told as kept is whole, nothing else is."""

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from generation_taking import make
from handiwork.model.errors import HandiworkError
from handiwork.sandboxes.snapshots.packs import PACK_BYTES
from handiwork.store.object_blobs import ObjectBlobs
from seaweed import seaweed_server
from slow_link import SlowLink
from snapshot_child import FILES, ID, change, generations_in, wanted

CHILD = Path(__file__).parents[1] / "snapshot_child.py"
ROUNDS = 6
PACE = 6_000_000


def made(generations, number: int, target: Path) -> Path:
    return make(generations, generations.load(ID, number), target)


def assert_whole(tree: Path, number: int) -> None:
    files = list(tree.iterdir())
    assert len(files) == FILES
    assert {one.read_bytes()[:8] for one in files} == {b"%08d" % number}


@pytest.mark.timeout(180)
def test_killed_at_any_moment_every_generation_is_whole(tmp_path):
    (tmp_path / "upper").mkdir()
    generations = generations_in(ObjectBlobs.in_directory(tmp_path / "blobs"))
    chance = random.Random(11)
    told = 0
    for turn in range(ROUNDS):
        argv = [sys.executable, str(CHILD), str(tmp_path)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            told = max(told, int(child.stdout.readline()))
            time.sleep(chance.random() * 0.4)
            child.kill()
            told = max([told, *(int(line) for line in child.stdout if line.strip())])
        numbers = generations.numbers(ID)
        assert (
            told <= numbers[0] <= told + 1
        )  # what was told is there; one more may not be told yet
        for number in numbers[:2]:
            assert_whole(made(generations, number, tmp_path / f"made-{turn}-{number}"), number)


@pytest.mark.timeout(180)
def test_an_s3_server_killed_while_it_is_written_to(tmp_path):
    """A real server dies with a pack half sent; its successor on the same disk has whole ones only."""
    upper, disk = tmp_path / "upper", tmp_path / "disk"
    upper.mkdir()
    disk.mkdir()
    with seaweed_server(disk) as server:
        generations = generations_in(ObjectBlobs.on_s3(server.place))
        change(upper, 1)
        first = generations.take(wanted(upper, 1), None, threading.Event())
        change(upper, 2)
        for number in range(20):
            (upper / f"more{number}").write_bytes(os.urandom(4_000_000))
        killer = threading.Timer(0.3, server.kill)
        killer.start()
        with pytest.raises(HandiworkError, match=r"check .snapshots. in"):
            generations.take(wanted(upper, 2), first, threading.Event())
        killer.join()
    with seaweed_server(disk) as server:
        generations = generations_in(ObjectBlobs.on_s3(server.place))
        assert generations.numbers(ID) == [1]
        assert_whole(made(generations, 1, tmp_path / "made"), 1)
        for number in range(20):
            (upper / f"more{number}").unlink()
        generations.take(wanted(upper, 2), generations.load(ID, 1), threading.Event())
        assert_whole(made(generations, 2, tmp_path / "made2"), 2)


@pytest.mark.timeout(180)
def test_an_s3_server_that_stalls_half_way_through_a_pack(tmp_path):
    """The way to a real server stops with a pack half sent: told in time, nothing listed, then well."""
    upper, disk = tmp_path / "upper", tmp_path / "disk"
    upper.mkdir()
    disk.mkdir()
    with seaweed_server(disk) as server:
        port = int(server.place.endpoint.rpartition(":")[2])
        with SlowLink(port) as link:
            place = msgspec.structs.replace(
                server.place,
                endpoint=f"http://127.0.0.1:{link.port}",
                timeout_seconds=2,
                retry_seconds=2,
            )
            generations = generations_in(ObjectBlobs.on_s3(place))
            change(upper, 1)
            first = generations.take(wanted(upper, 1), None, threading.Event())
            change(upper, 2)
            link.stall_after(500_000)
            with pytest.raises(HandiworkError, match=r"check .snapshots. in"):
                generations.take(wanted(upper, 2), first, threading.Event())
            assert link.stalled.is_set()
            link.go_on()
            beside = generations_in(ObjectBlobs.on_s3(server.place))
            assert beside.numbers(ID) == [1]
            assert_whole(made(beside, 1, tmp_path / "made"), 1)
            generations.take(wanted(upper, 2), generations.load(ID, 1), threading.Event())
            assert_whole(made(beside, 2, tmp_path / "made2"), 2)


@pytest.mark.timeout(180)
def test_an_s3_server_behind_a_slow_link(tmp_path):
    """Each pack takes seconds to go, all of them longer than one may: it is kept, and whole."""
    upper, disk = tmp_path / "upper", tmp_path / "disk"
    upper.mkdir()
    disk.mkdir()
    with seaweed_server(disk) as server:
        port = int(server.place.endpoint.rpartition(":")[2])
        with SlowLink(port, bytes_per_second=PACE) as link:
            endpoint = f"http://127.0.0.1:{link.port}"
            slow = msgspec.structs.replace(
                server.place, endpoint=endpoint, timeout_seconds=2.5 * PACK_BYTES / PACE
            )
            change(upper, 1)
            for number in range(12):
                (upper / f"more{number}").write_bytes(os.urandom(4_000_000))
            before = time.monotonic()
            first = generations_in(ObjectBlobs.on_s3(slow)).take(
                wanted(upper, 1), None, threading.Event()
            )
            assert time.monotonic() - before > slow.timeout_seconds
            assert link.forwarded > first.head.new_bytes > 48_000_000
        beside = generations_in(ObjectBlobs.on_s3(server.place))
        assert len(list(made(beside, 1, tmp_path / "made").iterdir())) == FILES + 12


@pytest.mark.timeout(180)
def test_a_link_that_is_too_slow_for_one_pack_is_told_in_time(tmp_path):
    upper, disk = tmp_path / "upper", tmp_path / "disk"
    upper.mkdir()
    disk.mkdir()
    (upper / "large").write_bytes(os.urandom(8_000_000))
    with seaweed_server(disk) as server:
        port = int(server.place.endpoint.rpartition(":")[2])
        with SlowLink(port, bytes_per_second=100_000) as link:
            endpoint = f"http://127.0.0.1:{link.port}"
            slow = msgspec.structs.replace(
                server.place, endpoint=endpoint, timeout_seconds=2, retry_seconds=2
            )
            before = time.monotonic()
            with pytest.raises(HandiworkError, match=r"check .snapshots. in"):
                generations_in(ObjectBlobs.on_s3(slow)).take(
                    wanted(upper, 1), None, threading.Event()
                )
            assert time.monotonic() - before < 60
        assert generations_in(ObjectBlobs.on_s3(server.place)).numbers(ID) == []
