"""Keys are told apart by themselves; a sessions key is good for one lease and stored nowhere."""

import base64
import json
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from handiwork.brains.local.keys import (
    Caller,
    Keyring,
    Kind,
    digest,
    kept_keys,
    replace_keys,
)
from handiwork.brains.local.queue import WorkItem
from handiwork.brains.local.tables import KEYS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ITEM = WorkItem(
    id="work_1", environment_id="env_1", subject_id="sesn_1", created_at=NOW, available_at=NOW
)


def token(keyring: Keyring, item: WorkItem) -> str:
    secret = keyring.secret(item)
    return json.loads(base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4)))["sessions_token"]


def test_a_sessions_key_names_its_item_and_lease_and_outlives_a_restart():
    key = token(Keyring("api", {}), ITEM)
    assert Keyring("api", {}).caller(key) == Caller(Kind.SESSIONS, None, "work_1", 0)
    assert Keyring("other api", {}).caller(key) is None


@pytest.mark.parametrize(
    "forged",
    ["", "x", "sk-ant-req-", "sk-ant-req-work_1.0.", "sk-ant-req-work_1.x.y", "sk-ant-req-a.b.c.d"],
)
def test_forged_keys_are_nobodys(forged):
    assert Keyring("api", {}).caller(forged) is None


def test_a_sessions_key_cannot_be_moved_to_another_item():
    key = token(Keyring("api", {}), ITEM)
    assert Keyring("api", {}).caller(key.replace("work_1", "work_2")) is None


async def test_keys_are_kept_hashed_and_replaced(database):
    await database.write(lambda c: replace_keys(c, "api-old", [("env_1", "k1"), ("env_2", "k2")]))
    await database.write(lambda c: replace_keys(c, "api-new", [("env_1", "k3")]))
    kept = await database.read(kept_keys)
    holders = {key: (caller.kind, caller.environment_id) for key, caller in kept.items()}
    assert holders == {
        digest("api-new"): (Kind.API, None),
        digest("k2"): (Kind.ENVIRONMENT, "env_2"),
        digest("k3"): (Kind.ENVIRONMENT, "env_1"),
    }
    assert len({caller.key_id for caller in kept.values()}) == 3
    rows = await database.read(lambda c: str(c.execute(select(KEYS)).all()))
    assert "api-new" not in rows
    assert "k3" not in rows


def test_keys_come_and_go_while_the_server_runs():
    keyring = Keyring("api", {})
    keyring.add(digest("one"), Caller(Kind.ENVIRONMENT, "env_1"))
    keyring.add(digest("two"), Caller(Kind.ENVIRONMENT, "env_2"))
    keyring.remove(digest("none"))
    keyring.forget("env_1")
    assert keyring.caller("one") is None
    keyring.remove(digest("two"))
    assert keyring.caller("two") is None
