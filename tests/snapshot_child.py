"""Takes generation after generation of a tree that changes, until it is killed."""

import os
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from handiwork.sandboxes.snapshots.capture import Wanted
from handiwork.sandboxes.snapshots.generations import Generations
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.sealing import Keys
from handiwork.store.object_blobs import ObjectBlobs
from tree_at import TreeAt

ID = "sbx_aaaaaaaa"
FILES = 30
KEYS = Keys(b"k" * 32)


def generations_in(blobs) -> Generations:
    return Generations(blobs, KEYS, "default", lambda: datetime.now(UTC), os.urandom)


def wanted(upper: Path, number: int) -> Wanted:
    return Wanted(
        tenant="default",
        sandbox_id=ID,
        number=number,
        reason="request",
        image="abc",
        tree="t",
        files=TreeAt(upper),
        ids=Range(0, os.geteuid()),
    )


def change(upper: Path, number: int) -> None:
    """Make every file begin with the number: a mixture of two generations would show."""
    for name in range(FILES):
        (upper / f"f{name}").write_bytes(b"%08d" % number + os.urandom(40_000))


def main() -> None:
    directory = Path(sys.argv[1])
    generations = generations_in(ObjectBlobs.in_directory(directory / "blobs"))
    while True:
        number, former = generations.newest(ID)
        change(directory / "upper", number)
        generations.take(wanted(directory / "upper", number), former, threading.Event())
        print(number, flush=True)


if __name__ == "__main__":
    main()
