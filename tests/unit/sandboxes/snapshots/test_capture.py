import random
import socket
import threading

import pytest

from handiwork.model.errors import ConflictError, SandboxUnavailableError


def test_the_second_generation_keeps_only_what_is_new(place, calm):
    noise = random.Random(3)
    for number in range(50):
        place.file(f"f{number}", noise.randbytes(60_000))
    first = place.take()
    assert first.head.new_bytes > 3_000_000
    place.file("f7", b"changed")
    place.file("new", b"more")
    second = place.take(first)
    assert second.head.new_bytes < 100_000
    assert (place.make(second) / "f7").read_bytes() == b"changed"
    assert (place.make(second, "again") / "f8").read_bytes() == (place.upper / "f8").read_bytes()
    assert (place.make(place.kept(1), "old") / "f7").read_bytes() != b"changed"


def test_excluded_paths_are_left_out(place):
    place.file("workspace/skills/pdf/SKILL.md", b"x")
    place.file("workspace/skills/mine", b"x")
    manifest = place.take(excluded=frozenset({"/workspace/skills/pdf"}))
    assert [one.name for one in (place.make(manifest) / "workspace/skills").iterdir()] == ["mine"]


def test_a_socket_is_skipped_and_named(place):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.upper / "control"))
    head = place.take().head
    assert head.skipped == ("/control is a socket",)
    assert head.skipped_count == 1


def test_a_number_is_given_once(place):
    place.take()
    place.number = 0
    with pytest.raises(ConflictError, match="generation 1"):
        place.take()


def test_a_stopped_capture_keeps_no_manifest(place):
    stop = threading.Event()
    stop.set()
    with pytest.raises(SandboxUnavailableError, match="stopped"):
        place.take(stop=stop)
    assert not list(place.blobs.list("default/manifests"))


def test_a_store_that_fails_at_any_step_leaves_no_generation(place):
    place.file("a", random.Random(5).randbytes(2_000_000))
    for step in range(2):
        place.blobs.fail_at(step)
        with pytest.raises(SandboxUnavailableError, match="refuses"):
            place.take()
        place.blobs.fault = None
        assert not list(place.blobs.list("default/manifests"))
    assert (place.make(place.take()) / "a").stat().st_size == 2_000_000


def test_one_content_is_kept_once(place):
    content = random.Random(7).randbytes(1_000_000)
    for number in range(5):
        place.file(f"f{number}", content)
    assert place.take().head.new_bytes < 1_200_000
