"""Bodies of requests about memory stores."""

import json

import pytest

from handiwork.brains.local.errors import WireError
from handiwork.brains.local.memory_shapes import (
    MemoryUpdate,
    StoreAttachment,
    StoreCreate,
    memory_view,
)
from handiwork.brains.local.shapes import decode


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        (StoreCreate, {"name": ""}),
        (StoreCreate, {"name": "a\nb"}),
        (StoreCreate, {"name": "a" * 256}),
        (StoreCreate, {"name": "a", "description": "d" * 1025}),
        (StoreCreate, {"name": "a", "metadata": {str(n): "" for n in range(17)}}),
        (StoreCreate, {"name": "a", "color": "red"}),
        (MemoryUpdate, {"precondition": {"type": "etag"}}),
        (MemoryUpdate, {"precondition": {"type": "content_sha256", "content_sha256": "A" * 64}}),
        (StoreAttachment, {"type": "memory_store"}),
        (StoreAttachment, {"type": "file", "memory_store_id": "x"}),
        (StoreAttachment, {"type": "memory_store", "memory_store_id": "x", "access": "all"}),
        (
            StoreAttachment,
            {"type": "memory_store", "memory_store_id": "x", "instructions": "i" * 4097},
        ),
    ],
)
def test_what_breaks_a_rule_is_a_400(shape, body):
    with pytest.raises(WireError) as refused:
        decode(json.dumps(body).encode(), shape)
    assert refused.value.status == 400


def test_a_view_shows_content_or_null():
    assert memory_view({"id": "m"}, None) == {"id": "m", "content": None}
