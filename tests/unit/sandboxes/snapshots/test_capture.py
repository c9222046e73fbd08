import mmap
import random
import socket
import threading

import pytest

from handiwork.model.errors import ConflictError, SandboxUnavailableError
from handiwork.sandboxes import trees
from handiwork.sandboxes.snapshots import walk


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


def test_what_is_written_through_a_mapping_later_is_seen(place, calm):
    """A page that is writable already takes writes without any change of times, until it is flushed."""
    path = place.file("mapped", b"0" * 8192)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8192) as mapping:
        mapping[0:1] = b"1"
        first = place.take()
        mapping[0:1] = b"2"
        second = place.take(first)
    assert (place.make(first, "first") / "mapped").read_bytes()[:1] == b"1"
    assert (place.make(second, "second") / "mapped").read_bytes()[:1] == b"2"


def test_where_mapped_writes_may_leave_the_times_no_file_is_recognised(place, calm, monkeypatch):
    monkeypatch.setattr(trees, "_WRITING_BACK", {})
    place.file("a", b"x" * 5000)
    assert all(entry.inode == 0 for entry in place.take().body.entries)


def test_a_disk_that_does_not_take_what_was_written_ends_it(place, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(walk, "flush_open", full)
    monkeypatch.setattr(walk, "writes_back", lambda _: True)
    with pytest.raises(SandboxUnavailableError, match="No space left"):
        place.take()
    assert not list(place.blobs.list("default/manifests"))
