"""What somebody sends to make an image of, kept in a file without a name until it is used."""

import os
from collections.abc import Iterator
from pathlib import Path

from handiwork.sandboxes.images import spool


class Upload:
    """Bytes as they come, then all of them from the start. Close it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.file = spool.unnamed(directory)
        self.size = 0

    def take(self, piece: bytes) -> None:
        """Keep more of it; blocks."""
        self.size += spool.fill(self.file, [piece], len(piece))

    def pieces(self) -> Iterator[bytes]:
        """Yield all that came."""
        return spool.pieces(self.file, 0, self.size)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.file)
