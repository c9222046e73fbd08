"""What a session is given beside its agent: memory stores, as the session keeps and shows them."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, select

from handiwork.brains.local.clock import NewId
from handiwork.brains.local.documents import Document
from handiwork.brains.local.errors import invalid, missing
from handiwork.brains.local.memories import Memories
from handiwork.brains.local.memory import MAX_STORES, mount_path
from handiwork.brains.local.memory_shapes import AttachmentUpdate, StoreAttachment
from handiwork.brains.local.shapes import decode
from handiwork.brains.local.tables import ATTACHED_STORES
from handiwork.model.ids import DEFAULT_TENANT


def attachment_of(resource: msgspec.Raw, environment_id: str) -> StoreAttachment:
    """Return a resource of a request; 400 for a kind that only Anthropic's sandboxes take."""
    kind = decode(bytes(resource), dict[str, Any]).get("type")
    if kind in ("file", "github_repository"):
        raise invalid(
            f"Environment {environment_id} is a self-hosted environment. `resources` of type"
            f" {kind} are not supported with self-hosted environments."
        )
    return decode(bytes(resource), StoreAttachment)


async def attached(
    memories: Memories,
    wanted: Sequence[StoreAttachment],
    present: Sequence[Document],
    new_id: NewId,
) -> list[Document]:
    """Return the resources after these stores are added; 404 or 400 for one that cannot be."""
    resources = list(present)
    for each in wanted:
        if any(each.memory_store_id == known["memory_store_id"] for known in resources):
            raise invalid(f"resources: {each.memory_store_id} is attached twice")
        if len(resources) >= MAX_STORES:
            raise invalid(f"resources: at most {MAX_STORES} memory stores")
        store = await memories.store(each.memory_store_id)
        if store["archived_at"]:
            raise invalid(f"memory store {each.memory_store_id} is archived")
        resources.append(
            {
                "id": new_id("sesrsc"),
                "type": "memory_store",
                "memory_store_id": each.memory_store_id,
                "access": each.access or "read_write",
                "instructions": each.instructions,
                "name": store["name"],
                "description": store["description"],
                "mount_path": mount_path(store["name"], (one["mount_path"] for one in resources)),
            }
        )
    return resources


def find(resources: Sequence[Document], name: str) -> Document:
    """Return the resource of this id, or of this memory store; 404."""
    for resource in resources:
        if name in (resource["id"], resource["memory_store_id"]):
            return resource
    raise missing("resource", name)


def changed(resource: Document, change: AttachmentUpdate) -> Document:
    """Return the resource with what is given."""
    after = {**resource, "access": change.access or resource["access"]}
    if change.instructions is not msgspec.UNSET:
        after["instructions"] = change.instructions
    return after


def keep_attached(connection: Connection, session_id: str, resources: Sequence[Document]) -> None:
    """Write which stores a session names."""
    forget_attached(connection, session_id)
    rows = [
        {
            "session_id": session_id,
            "store_id": resource["memory_store_id"],
            "tenant_id": DEFAULT_TENANT,
        }
        for resource in resources
    ]
    if rows:
        connection.execute(insert(ATTACHED_STORES), rows)


def forget_attached(connection: Connection, session_id: str) -> None:
    """Forget which stores a session named."""
    connection.execute(delete(ATTACHED_STORES).where(ATTACHED_STORES.c.session_id == session_id))


def sessions_with(store_id: str) -> Any:
    """Return the query of the ids of sessions that name a store."""
    return select(ATTACHED_STORES.c.session_id).where(ATTACHED_STORES.c.store_id == store_id)
