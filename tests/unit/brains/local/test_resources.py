"""Which resources a session of this server takes."""

import msgspec
import pytest

from handiwork.brains.local import resources
from handiwork.brains.local.errors import WireError
from handiwork.brains.local.memory_shapes import AttachmentUpdate, StoreAttachment, StoreCreate


def raw(**resource) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(resource))


@pytest.mark.parametrize(
    "resource",
    [
        {"type": "file", "file_id": "file_1"},
        {"type": "github_repository", "url": "https://github.com/a/b"},
    ],
)
def test_what_only_anthropics_sandboxes_take_is_refused_in_the_services_words(resource):
    with pytest.raises(WireError, match="env_1 is a self-hosted environment"):
        resources.attachment_of(raw(**resource), "env_1")


@pytest.mark.parametrize("body", [b"[]", b"null", b'{"type": 5}', b'{"type": "s3"}', b"{}"])
def test_hostile_resources_are_a_400(body):
    with pytest.raises(WireError) as refused:
        resources.attachment_of(msgspec.Raw(body), "env_1")
    assert refused.value.status == 400


async def test_stores_are_attached_once_within_the_limit_and_unarchived(services):
    stores = [
        (await services.memories.create_store(StoreCreate(name=f"s {n}")))["id"] for n in range(10)
    ]

    async def attach(*names, present=()):
        wanted = [StoreAttachment(memory_store_id=name) for name in names]
        return await resources.attached(services.memories, wanted, present, services.new_id)

    given = await attach(*stores[:8])
    assert [each["mount_path"] for each in given[:2]] == ["/mnt/memory/s-0", "/mnt/memory/s-1"]
    assert given[0]["access"] == "read_write"
    with pytest.raises(WireError, match="at most 8"):
        await attach(stores[8], present=given)
    with pytest.raises(WireError, match="twice"):
        await attach(stores[0], stores[0])
    with pytest.raises(WireError, match="does not exist"):
        await attach("memstore_none")
    await services.memories.archive_store(stores[9])
    with pytest.raises(WireError, match="archived"):
        await attach(stores[9])


def test_a_resource_is_found_by_its_id_or_its_store():
    held = {"id": "r", "memory_store_id": "m", "access": "read_only", "instructions": "i"}
    assert resources.find([held], "r") is resources.find([held], "m") is held
    with pytest.raises(WireError):
        resources.find([held], "x")
    assert resources.changed(held, AttachmentUpdate(access="read_write"))["instructions"] == "i"
    assert resources.changed(held, AttachmentUpdate(instructions=None))["instructions"] is None
