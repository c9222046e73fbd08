"""A tree such as a guest leaves, and one place to take and to make it."""

import os
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handiwork.sandboxes.snapshots import former
from handiwork.sandboxes.snapshots.capture import Capture, Wanted
from handiwork.sandboxes.snapshots.manifest import decode, manifest_key
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.packs import PackReader
from handiwork.sandboxes.snapshots.restore import Restore
from handiwork.sandboxes.snapshots.sealing import Keys
from handiwork.sandboxes.trees import remove_tree
from handiwork.testing.blobs import FakeBlobs
from tree_at import TreeAt

BASE = 3_000_000 if os.geteuid() == 0 else 0


class Place:
    """Takes and makes trees of one sandbox."""

    def __init__(self, directory: Path, blobs=None) -> None:
        self.directory = directory
        self.blobs = FakeBlobs() if blobs is None else blobs
        self.keys = Keys(b"k" * 32)
        self.ids = Range(BASE, os.geteuid())
        self.number = 0
        self.upper = directory / "upper"
        self.upper.mkdir()
        self.own(self.upper)

    def own(self, path: Path, inner: int = 0) -> None:
        if BASE:
            os.chown(path, BASE + inner, BASE + inner, follow_symlinks=False)

    def file(self, name: str, content: bytes, inner: int = 0) -> Path:
        path = self.upper / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.own(path, inner)
        return path

    def wanted(self, *, upper=None, below=(), lower=None, **changes) -> Wanted:
        self.number += 1
        facts = {
            "tenant": "default",
            "sandbox_id": "sbx_aaaaaaaa",
            "number": self.number,
            "reason": "request",
            "image": "abc",
            "tree": "t1",
            "files": TreeAt(upper or self.upper, *below, lower=lower),
            "ids": self.ids,
        }
        return Wanted(**(facts | changes))

    def take(self, former=None, *, stop=None, **changes):
        capture = Capture(self.blobs, self.keys, lambda: datetime.now(UTC), os.urandom)
        capture.stop = stop or threading.Event()
        return capture.take(self.wanted(**changes), former)

    def kept(self, number: int):
        key = manifest_key("default", "sbx_aaaaaaaa", number)
        return decode(self.blobs.get(key), key, self.keys)

    def make(self, manifest, name="made", ids=None) -> Path:
        target = self.directory / f"for-{name}"
        target.mkdir()
        place = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            reader = PackReader(self.blobs, self.keys, "default")
            Restore(manifest, reader, ids or self.ids, place, name).run()
        finally:
            os.close(place)
        return target / name


@pytest.fixture
def place():
    directory = Path(tempfile.mkdtemp(prefix="handiwork-snapshot-"))
    yield Place(directory)
    remove_tree(directory)


@pytest.fixture
def calm(monkeypatch):
    """Trust times at once: no test waits until a file is two seconds old."""
    monkeypatch.setattr(former, "RACY_NS", -(10**12))
