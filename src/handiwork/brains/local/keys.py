"""Who asks: the API key, an environment's key, or the sessions key inside a work item's secret.

Keys are told apart by themselves, never by the header they come in. The database holds digests. A
sessions key is made from the API key, so it survives a restart and is written down nowhere; it is
good for one lease of one item.
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable
from enum import StrEnum

import msgspec
from sqlalchemy import Connection, delete, insert, select

from handiwork.brains.local.queue import WorkItem
from handiwork.brains.local.tables import KEYS
from handiwork.model.ids import DEFAULT_TENANT

ENVIRONMENT_PREFIX = "sk-ant-oat01-"
SESSIONS_PREFIX = "sk-ant-req-"


class Kind(StrEnum):
    """What a key is for."""

    API = "api"
    ENVIRONMENT = "environment"
    SESSIONS = "sessions"


HANDS = (Kind.API, Kind.ENVIRONMENT, Kind.SESSIONS)
"""Who may see a session."""


class Caller(msgspec.Struct, frozen=True):
    """Who asks. `work_id` and `epoch` stand for a sessions key only, `key_id` for the other two."""

    kind: Kind
    environment_id: str | None = None
    work_id: str | None = None
    epoch: int | None = None
    key_id: str | None = None


def digest(key: str) -> str:
    """Return what is kept of a key: keys are long and random, so a plain hash does."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_id(of_digest: str) -> str:
    """Return the name of a key that came with a bootstrap."""
    return f"apikey_01{of_digest[:22]}"


class Keyring:
    """The keys that are good now."""

    def __init__(self, api_key: str, callers: dict[str, Caller]) -> None:
        self._callers = callers
        self._sessions_key = hmac.digest(api_key.encode(), b"handiwork sessions keys 1", "sha256")

    def add(self, of_digest: str, caller: Caller) -> None:
        """Let a key in, known by its digest."""
        self._callers[of_digest] = caller

    def remove(self, of_digest: str) -> None:
        """Let a key in no more."""
        self._callers.pop(of_digest, None)

    def forget(self, environment_id: str) -> None:
        """Let no key of an environment in any more."""
        for of_digest, caller in list(self._callers.items()):
            if caller.environment_id == environment_id:
                del self._callers[of_digest]

    def caller(self, key: str) -> Caller | None:
        """Return who holds the key; None when it is nobody's."""
        if key.startswith(SESSIONS_PREFIX):
            return self._sessions_caller(key)
        return self._callers.get(digest(key))

    def secret(self, item: WorkItem) -> str:
        """Return the `secret` of a work item as a poll gives it."""
        payload = {"sessions_token": self._sessions_token(item.id, item.epoch)}
        return base64.urlsafe_b64encode(msgspec.json.encode(payload)).decode().rstrip("=")

    def _sessions_token(self, work_id: str, epoch: int) -> str:
        said = f"{work_id}.{epoch}"
        seal = hmac.digest(self._sessions_key, said.encode(), "sha256").hex()
        return f"{SESSIONS_PREFIX}{said}.{seal}"

    def _sessions_caller(self, key: str) -> Caller | None:
        parts = key.removeprefix(SESSIONS_PREFIX).split(".")
        if len(parts) != 3 or not (parts[1].isascii() and parts[1].isdigit()):
            return None
        work_id, epoch = parts[0], int(parts[1][:9])
        expected = self._sessions_token(work_id, epoch)
        if not hmac.compare_digest(key.encode(), expected.encode()):
            return None
        return Caller(Kind.SESSIONS, work_id=work_id, epoch=epoch)


def replace_keys(
    connection: Connection, api_key: str, environments: Iterable[tuple[str, str]]
) -> None:
    """Keep these keys; those that an older bootstrap brought for the same are void."""
    rows = [_row(Kind.API, None, api_key)]
    rows += [_row(Kind.ENVIRONMENT, name, key) for name, key in environments]
    connection.execute(delete(KEYS).where(KEYS.c.kind == Kind.API))
    for row in rows[1:]:
        of_environment = KEYS.c.environment_id == row["environment_id"]
        connection.execute(delete(KEYS).where(of_environment, KEYS.c.id.is_(None)))
    connection.execute(insert(KEYS), rows)


def kept_keys(connection: Connection) -> dict[str, Caller]:
    """Return the keys on record by digest."""
    return {
        row.digest: Caller(Kind(row.kind), row.environment_id, key_id=row.id or key_id(row.digest))
        for row in connection.execute(select(KEYS))
    }


def _row(kind: Kind, environment_id: str | None, key: str) -> dict[str, str | None]:
    return {
        "digest": digest(key),
        "tenant_id": DEFAULT_TENANT,
        "kind": kind,
        "environment_id": environment_id,
    }
