"""The bodies of requests about memory stores, and the views of answers."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from handiwork.brains.local.documents import Document
from handiwork.brains.local.shapes import Body, Metadata, MetadataPatch

StoreName = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Description = Annotated[str, Meta(max_length=1024)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class StoreCreate(Body, frozen=True):
    """POST /v1/memory_stores."""

    name: StoreName
    description: Description = ""
    metadata: Metadata = msgspec.field(default_factory=dict)


class StoreUpdate(Body, frozen=True):
    """POST /v1/memory_stores/{id}."""

    name: StoreName | None = None
    description: Description | None = None
    metadata: MetadataPatch | None = None


class MemoryCreate(Body, frozen=True):
    """POST …/memories."""

    path: str
    content: str | None


class Precondition(Body, frozen=True):
    """What the memory must hold for an update to apply."""

    type: Literal["content_sha256"]
    content_sha256: Digest | None = None


class MemoryUpdate(Body, frozen=True):
    """POST …/memories/{id}: what is left out stays."""

    path: str | None = None
    content: str | None = None
    precondition: Precondition | None = None


class StoreAttachment(Body, frozen=True, tag="memory_store", tag_field="type"):
    """A memory store among a session's resources."""

    memory_store_id: str
    access: Literal["read_write", "read_only"] | None = None
    instructions: Annotated[str, Meta(max_length=4096)] | None = None


class AttachmentUpdate(Body, frozen=True):
    """POST /v1/sessions/{id}/resources/{id}: what may change of an attached store."""

    access: Literal["read_write", "read_only"] | None = None
    instructions: Annotated[str, Meta(max_length=4096)] | msgspec.UnsetType | None = msgspec.UNSET


def memory_view(document: Document, content: str | None) -> Document:
    """Return a memory, with its content where it is to be shown."""
    return {**document, "content": content}
