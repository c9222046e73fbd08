"""All that a snapshot holds, opened as whoever has its key can: nothing of it is passed over."""

import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from handiwork.client.sandboxes import Sandbox
from handiwork.sandboxes.snapshots import archive
from handiwork.sandboxes.snapshots.generations import Generations
from handiwork.sandboxes.snapshots.packs import PackReader


async def contents(box: Sandbox, directory: Path) -> bytes:
    """Take one and return what it says of itself, names, owners, attributes, what links lead to, contents."""
    taken = await box.snapshot()
    path = directory / f"exported-{box.id}-{taken.number}"
    await box.snapshots.export(taken.number, path)
    with path.open("rb") as file:
        found = archive.opened(file.fileno(), os.fstat(file.fileno()).st_size)
        generations = Generations(
            found.blobs, found.keys, archive.TENANT, lambda: datetime.now(UTC), os.urandom
        )
        manifest = generations.load(found.sandbox_id, found.number)
        reader = PackReader(found.blobs, found.keys, archive.TENANT)
        head, body = manifest.head, manifest.body
        # The body is packed with names as bytes: raw, as they are.
        pieces = [repr(head).encode(), msgspec.msgpack.encode(body)]
        # What a file holds comes in pieces that may cut a value: joined as the file has them.
        chunks = [reader.chunk(head.packs[one.pack], one, str) for one in body.chunks]
        for entry in body.entries:
            parts = [entry.extents[at : at + 4] for at in range(0, len(entry.extents), 4)]
            pieces.append(b"".join(chunks[of][skip : skip + size] for _, of, skip, size in parts))
    return b"\0".join([*pieces, *chunks])
