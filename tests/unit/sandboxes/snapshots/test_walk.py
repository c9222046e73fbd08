import os
import threading
from pathlib import Path

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.snapshots import walk
from handiwork.sandboxes.snapshots.manifest import MAX_DEPTH


def open_descriptors():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_link_is_never_followed(place, tmp_path):
    (tmp_path / "secret").write_text("host")
    (place.upper / "out").symlink_to(tmp_path)
    place.file("in/x", b"1")
    names = {entry.name for entry in place.take().body.entries}
    assert names == {b"", b"out", b"in", b"x"}


def test_a_tree_too_deep_ends_it(place):
    at = os.open(place.upper, os.O_RDONLY)
    for _ in range(MAX_DEPTH + 2):
        os.mkdir("d" * 200, dir_fd=at)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    with pytest.raises(SandboxUnavailableError, match="deeper than"):
        place.take()


def test_too_many_entries_end_it(place, monkeypatch):
    monkeypatch.setattr(walk, "MAX_ENTRIES", 5)
    for number in range(10):
        place.file(f"f{number}", b"")
    with pytest.raises(SandboxUnavailableError, match="more than 5"):
        place.take()


def test_too_many_names_end_it(place, monkeypatch):
    monkeypatch.setattr(walk, "MAX_NAMES", 5)
    for number in range(10):
        place.file(f"many/f{number}", b"")
    with pytest.raises(SandboxUnavailableError, match="/many holds more than 5"):
        place.take()


def test_few_directories_are_open_at_once(place):
    for number in range(300):
        (place.upper / f"d{number}").mkdir()
    before = open_descriptors()
    most = 0

    class Watching(threading.Event):
        def is_set(self):
            nonlocal most
            most = max(most, open_descriptors())
            return False

    place.take(stop=Watching())
    assert most - before < 10
    assert open_descriptors() == before


@pytest.mark.timeout(120)
def test_a_guest_that_swaps_names_gets_nothing_of_the_host(place, tmp_path):
    """Files become links, pipes and directories while they are walked; nothing hangs or leaks."""
    (tmp_path / "secret").write_text("of the host" * 100)
    over = threading.Event()

    def swap():
        while not over.is_set():
            for number in range(20):
                path = place.upper / f"f{number}"
                path.unlink(missing_ok=True)
                path.symlink_to(tmp_path / "secret")
                path.unlink()
                os.mkfifo(path)
                path.unlink()
                path.write_bytes(b"guest")

    guest = threading.Thread(target=swap)
    guest.start()
    try:
        for _ in range(40):
            try:
                manifest = place.take()
            except (SandboxUnavailableError, FileNotFoundError):
                continue
            assert all(entry.size != 1100 for entry in manifest.body.entries)
    finally:
        over.set()
        guest.join()
