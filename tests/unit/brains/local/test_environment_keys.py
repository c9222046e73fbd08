"""Keys are made, told apart and voided; those of the bootstrap stay its own."""

import pytest
from sqlalchemy import select

from handiwork.brains.local import environment_keys as rules
from handiwork.brains.local.catalog import ensure_environments
from handiwork.brains.local.errors import WireError
from handiwork.brains.local.keys import Kind, digest, kept_keys, replace_keys
from handiwork.brains.local.tables import KEYS


@pytest.fixture
async def keys(services):
    def change(connection):
        ensure_environments(connection, [("env_1", "one")], services.clock)
        replace_keys(connection, "api-key", [("env_1", "bootstrap-key")])

    await services.database.write(change)
    return services.environment_keys


async def test_a_key_is_shown_once_and_kept_as_a_digest(services, keys):
    made = await keys.create("env_1")
    assert made["key"].startswith("sk-ant-oat01-")
    caller = services.keyring.caller(made["key"])
    assert (caller.kind, caller.environment_id) == (Kind.ENVIRONMENT, "env_1")
    listed = (await keys.list("env_1"))["data"]
    assert [each["digest_prefix"] for each in listed] == [
        digest("bootstrap-key")[:12],
        digest(made["key"])[:12],
    ]
    rows = await services.database.read(lambda each: each.execute(select(KEYS)).all())
    assert made["key"] not in str(rows)
    assert all("key" not in each for each in listed)


async def test_a_key_survives_a_start_with_another_bootstrap_key(services, keys):
    made = await keys.create("env_1")
    await services.database.write(lambda each: replace_keys(each, "api-key", [("env_1", "new")]))
    kept = await services.database.read(kept_keys)
    assert {digest(made["key"]), digest("new"), digest("api-key")} == set(kept)


async def test_a_deleted_key_is_void_at_once(services, keys):
    first, second = await keys.create("env_1"), await keys.create("env_1")
    await keys.delete("env_1", first["id"])
    assert services.keyring.caller(first["key"]) is None
    assert services.keyring.caller(second["key"]) is not None
    with pytest.raises(WireError, match="does not exist"):
        await keys.delete("env_1", first["id"])


async def test_the_bootstraps_key_is_not_deleted(keys):
    [listed] = (await keys.list("env_1"))["data"]
    with pytest.raises(WireError, match="bootstrap"):
        await keys.delete("env_1", listed["id"])


async def test_keys_have_a_limit(keys, monkeypatch):
    monkeypatch.setattr(rules, "MAX_KEYS", 1)
    with pytest.raises(WireError, match="1 keys"):
        await keys.create("env_1")
    with pytest.raises(WireError, match="environment env_none does not exist"):
        await keys.create("env_none")
