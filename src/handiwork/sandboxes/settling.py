"""Layers made one again: all that a sandbox sees of its disk and what it shares, on a disk of its own.

Contents are copied while the layers are walked, under numbers; then the tree is made as a snapshot's
is, and each content takes its name. What a snapshot leaves out is left out here too.
"""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.disk_files import PIECE_BYTES, segments
from handiwork.sandboxes.snapshots.contents import OpenFile
from handiwork.sandboxes.snapshots.listing import Rules
from handiwork.sandboxes.snapshots.manifest import Body, Entry, Head, Manifest
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.restore import Restore
from handiwork.sandboxes.snapshots.walk import DIRECTORY, Walk

CONTENTS = ".contents"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, kw_only=True)
class Settling:
    """One making of `upper` in the open directory `place`; blocks. `stop` ends it from elsewhere."""

    sandbox_id: str
    uppers: Sequence[int]
    image: int | None
    owners: Range
    place: int
    ids: Range
    stop: threading.Event

    def run(self) -> list[Entry]:
        """Make it and return its entries; what raises leaves a part of it. SandboxUnavailableError, OSError."""
        os.mkdir(CONTENTS, 0o700, dir_fd=self.place)
        contents = os.open(CONTENTS, DIRECTORY, dir_fd=self.place)
        try:
            entries = self._walked(contents)
            manifest = self._manifest(entries)
            Restore(manifest, None, self.ids, self.place, "upper", self.stop, contents).run()
        finally:
            os.close(contents)
        os.rmdir(CONTENTS, dir_fd=self.place)
        return entries

    def _walked(self, contents: int) -> list[Entry]:
        def read(entry: Entry, content: OpenFile) -> None:
            entry.size = content.size
            number = len(walk.entries) - 1
            target = os.open(str(number), _CREATE, 0o600, dir_fd=contents)
            try:
                _copy(content.descriptor, target, content.size, self.stop)
            finally:
                os.close(target)

        walk = Walk(Rules(ids=self.owners, stopped=self.stop.is_set), read)
        walk.run(*self.uppers, image=self.image)
        return walk.entries

    def _manifest(self, entries: list[Entry]) -> Manifest:
        head = Head(
            tenant="",
            sandbox_id=self.sandbox_id,
            number=0,
            created=datetime.fromtimestamp(0, UTC),
            reason="request",
            image="",
            tree="",
            started_ns=0,
            entries=len(entries),
            content_bytes=0,
            new_bytes=0,
        )
        return Manifest(head, Body(chunks=(), entries=entries))


def _copy(source: int, target: int, size: int, stop: threading.Event) -> None:
    """Copy what is not a hole: between file systems, so by way of memory. SandboxUnavailableError."""
    os.ftruncate(target, size)
    for start, end in segments(source):
        at = start
        os.lseek(target, start, os.SEEK_SET)
        while at < min(end, size):
            if stop.is_set():
                raise SandboxUnavailableError("the copy was stopped")
            sent = os.sendfile(target, source, at, min(end - at, PIECE_BYTES))
            if not sent:
                break
            at += sent
