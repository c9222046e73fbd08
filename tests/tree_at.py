"""What a sandbox wrote, where it lies at a path."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from handiwork.sandboxes.snapshots.listing import Listing, Rules
from handiwork.sandboxes.snapshots.walk import DIRECTORY, Read, Uppers


class TreeAt:
    """Implements `snapshots.protocol.Tree`: uppers, topmost first; `lower` is the open root of an image."""

    def __init__(self, *uppers: Path, lower: int | None = None) -> None:
        self._uppers = uppers
        self._lower = lower

    def flush(self) -> bool:
        with self._opened() as tree:
            return tree.flush()

    def listed(self, rules: Rules, read: Read) -> Listing:
        with self._opened() as tree:
            return tree.listed(rules, read)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Uppers]:
        with contextlib.ExitStack() as opened:
            found = []
            for path in self._uppers:
                found.append(os.open(path, DIRECTORY))
                opened.callback(os.close, found[-1])
            yield Uppers(found, self._lower)
