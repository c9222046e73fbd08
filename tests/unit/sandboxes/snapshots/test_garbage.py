"""Packs that no manifest names."""

import os
from datetime import UTC, datetime

import pytest

from handiwork.sandboxes.snapshots.garbage import delete_packs, unused_packs
from handiwork.sandboxes.snapshots.generations import Generations
from handiwork.sandboxes.snapshots.sealing import DamagedError


def generations_of(place):
    return Generations(place.blobs, place.keys, "default", lambda: datetime.now(UTC), os.urandom)


def test_those_and_no_others(place):
    place.file("a", b"1" * 50_000)
    first = place.take()
    place.file("a", b"2" * 50_000)
    place.take(first)
    generations = generations_of(place)
    assert unused_packs(generations) == set()
    generations.forget("sbx_aaaaaaaa", 1)
    (unused,) = unused_packs(generations)
    used = {key for key in place.blobs.kept if "/packs/" in key} - {unused}
    assert delete_packs(generations, used, 10) == 0
    assert delete_packs(generations, {unused}, 0) == 0
    assert delete_packs(generations, {unused, *used}, 10) == 1
    assert {key for key in place.blobs.kept if "/packs/" in key} == used


def test_one_manifest_that_cannot_be_read_keeps_all(place):
    place.file("a", b"1" * 50_000)
    place.take()
    (key,) = [key for key in place.blobs.kept if "/manifests/" in key]
    place.blobs.kept[key] = b"x" + place.blobs.kept[key][1:]
    with pytest.raises(DamagedError):
        unused_packs(generations_of(place))
