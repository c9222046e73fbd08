"""Packs that no manifest names. Both calls block.

Where one manifest cannot be read nothing counts as unused: it may name any pack.
"""

from handiwork.sandboxes.snapshots.generations import Generations
from handiwork.sandboxes.snapshots.manifest import HEAD_BYTES, decode_head
from handiwork.sandboxes.snapshots.packs import pack_key


def unused_packs(generations: Generations) -> set[str]:
    """Return the keys of the packs that are not needed; DamagedError when that cannot be told.

    Packs are listed first: one that is written meanwhile is not looked at.
    """
    blobs, tenant = generations.blobs, generations.tenant
    packs = set(blobs.list(f"{tenant}/packs"))
    for key in blobs.list(f"{tenant}/manifests"):
        head = decode_head(blobs.get(key, limit_bytes=HEAD_BYTES), key, generations.keys)
        packs.difference_update(pack_key(tenant, pack) for pack in head.packs)
    return packs


def delete_packs(generations: Generations, wanted: set[str], most: int) -> int:
    """Delete those of the wanted packs that are still unused, at most so many; return how many."""
    gone = sorted(wanted & unused_packs(generations))[:most]
    for key in gone:
        generations.blobs.delete(key)
    return len(gone)
