import os
import random
import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from handiwork.model.errors import HandiworkError, NotFoundError
from handiwork.sandboxes.snapshots.generations import Generations
from handiwork.sandboxes.snapshots.manifest import manifest_key
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.sealing import DamagedError
from handiwork.sandboxes.states import States
from handiwork.store.object_blobs import ObjectBlobs

ID = "sbx_aaaaaaaa"


@pytest.fixture
def generations(place):
    return Generations(place.blobs, place.keys, "default", lambda: datetime.now(UTC), os.urandom)


def take(place, generations):
    number, former = generations.newest(ID)
    return generations.take(replace(place.wanted(), number=number), former, threading.Event())


def test_each_generation_has_the_next_number(place, generations):
    assert generations.numbers(ID) == []
    for text in (b"one", b"two", b"three"):
        place.file("a", text)
        take(place, generations)
    assert generations.numbers(ID) == [3, 2, 1]
    assert generations.head(ID, 2).number == 2
    assert (place.make(generations.load(ID, 2)) / "a").read_bytes() == b"two"
    with pytest.raises(NotFoundError, match="0000000009"):
        generations.head(ID, 9)


def test_the_numbers_of_all_sandboxes_and_of_nothing_else(place, generations):
    assert generations.all_numbers() == {}
    for sandbox_id, number in ((ID, 1), (ID, 12), ("sbx_bbbbbbbb", 3)):
        place.blobs.kept[manifest_key("default", sandbox_id, number)] = b"x"
    for other in ("1", "0000000004.tmp", "notes.txt", "deeper/0000000005"):
        place.blobs.kept[f"default/manifests/{ID}/{other}"] = b"x"
    place.blobs.kept["default/manifests/0000000006"] = b"x"
    assert generations.all_numbers() == {ID: [1, 12], "sbx_bbbbbbbb": [3]}


def test_a_damaged_newest_is_told_and_does_not_stop_the_next(place, generations):
    place.file("a", b"x")
    take(place, generations)
    place.blobs.kept[manifest_key("default", ID, 1)] = b"HWSNAP1\ntorn"
    with pytest.raises(DamagedError, match="cut short"):
        generations.load(ID, 1)
    assert take(place, generations).head.number == 2
    assert (place.make(generations.load(ID, 2)) / "a").read_bytes() == b"x"


@pytest.mark.parametrize("step", range(4))
def test_a_failed_restore_leaves_the_state_as_it_is(place, generations, step):
    """The store fails at every step in turn; only a whole tree ever takes the state's place."""
    ranged = os.geteuid() == 0
    noise = random.Random(8)
    for number in range(3):
        place.file(f"f{number}", noise.randbytes(17_000_000))
    manifest = take(place, generations)
    assert len(manifest.head.packs) == 4
    states = States(place.directory / "states", ranged=ranged, first_id=4_000_000)
    meta = states.make(ID, "abc", datetime.now(UTC))
    states.save(meta)
    (states.path(ID) / "upper" / "precious").write_text("here")
    place.blobs.fail_at(step)
    staged = states.stage(ID, manifest.head.image, datetime.now(UTC))
    held = os.open(staged.path, os.O_RDONLY | os.O_DIRECTORY)
    ids = Range(staged.meta.id_base, os.geteuid())
    with pytest.raises(HandiworkError, match="refuses"):
        generations.make(manifest, ids, held, "upper", threading.Event())
    assert [one.name for one in (states.path(ID) / "upper").iterdir()] == ["precious"]
    place.blobs.fault = None
    states = States(place.directory / "states", ranged=ranged, first_id=4_000_000)
    assert not list((place.directory / "states").glob(".staged-*"))
    staged = states.stage(ID, manifest.head.image, datetime.now(UTC))
    os.close(held)
    held = os.open(staged.path, os.O_RDONLY | os.O_DIRECTORY)
    generations.make(manifest, ids, held, "upper", threading.Event())
    os.close(held)
    states.install(staged)
    assert len(list((states.path(ID) / "upper").iterdir())) == 3


def test_a_full_disk_leaves_no_generation(place, tmp_path, monkeypatch):
    """A directory of blobs that takes no byte more: told, and the generation before stays whole."""
    blobs = ObjectBlobs.in_directory(tmp_path / "blobs")
    place.blobs = blobs
    ours = Generations(blobs, place.keys, "default", lambda: datetime.now(UTC), os.urandom)
    place.file("a", b"x" * 1000)
    take(place, ours)
    place.file("b", os.urandom(100_000))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HandiworkError, match="No space left"):
        take(place, ours)
    monkeypatch.undo()
    assert ours.numbers(ID) == [1]
    assert (place.make(ours.load(ID, 1)) / "a").read_bytes() == b"x" * 1000
