"""Vaults and credentials. A secret value is sealed at once, and nothing here can open it again.

What is kept of a value is a `SealedSecret` for the operator's egress proxy, bound to the allowed
hosts. Archiving or deleting a credential forgets it; the next read of a session's credentials is
without it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, select, update

from handiwork.brains.local import documents
from handiwork.brains.local.clock import Clock, NewId
from handiwork.brains.local.documents import Document
from handiwork.brains.local.errors import WireError, invalid, missing
from handiwork.brains.local.paging import Page, Query
from handiwork.brains.local.queue import timestamp
from handiwork.brains.local.shapes import merged
from handiwork.brains.local.tables import CREDENTIALS, VAULTS
from handiwork.brains.local.vault_shapes import (
    NOTHING,
    SERVED,
    CredentialCreate,
    CredentialUpdate,
    VariableCreate,
    VariableUpdate,
    VaultCreate,
    VaultUpdate,
    auth_of,
    locations,
)
from handiwork.model.errors import ConfigError
from handiwork.model.ids import DEFAULT_TENANT
from handiwork.model.sealing import ENTROPY_BYTES, seal
from handiwork.model.secret import SealedSecret
from handiwork.store.database import Database

MAX_CREDENTIALS = 100
"""Credentials of one vault, archived ones too."""
HEADERS_ONLY = {"header": True, "body": False}


class Vaults:
    """All vaults. `seal_key` is the public key that values are sealed to; None: none are taken."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        new_id: NewId,
        *,
        seal_key: bytes | None,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._clock = clock
        self._new_id = new_id
        self._seal_key = seal_key
        self._entropy = entropy

    async def create(self, body: VaultCreate) -> Document:
        """Keep a new vault."""
        now = timestamp(self._clock())
        vault = {
            "id": self._new_id("vlt"),
            "type": "vault",
            "display_name": body.display_name,
            "metadata": body.metadata,
            "created_at": now,
            "updated_at": now,
            "archived_at": None,
        }
        await self._database.write(lambda each: documents.add(each, VAULTS, vault))
        return vault

    async def get(self, vault_id: str) -> Document:
        """Return a vault; 404."""
        return await self._database.read(lambda each: _vault(each, vault_id))

    async def list(self, query: Query, page: Page) -> Document:
        """List vaults, newest first."""
        return await documents.listed(self._database, VAULTS, query, page)

    async def update(self, vault_id: str, body: VaultUpdate) -> Document:
        """Change what is given."""
        now = timestamp(self._clock())

        def change(connection: Connection) -> Document:
            vault = _vault(connection, vault_id, open_only=True)
            vault |= {
                "display_name": body.display_name or vault["display_name"],
                "metadata": merged(vault["metadata"], body.metadata),
                "updated_at": now,
            }
            documents.put(connection, VAULTS, vault)
            return vault

        return await self._database.write(change)

    async def archive(self, vault_id: str) -> Document:
        """End a vault with all its credentials; their values are forgotten."""
        now = timestamp(self._clock())

        def change(connection: Connection) -> Document:
            of_vault = CREDENTIALS.c.vault_id == vault_id
            vault = documents.archive(connection, VAULTS, _vault(connection, vault_id), now)
            for row in connection.execute(select(CREDENTIALS.c.body).where(of_vault)).all():
                _archive_credential(connection, msgspec.json.decode(row.body), now)
            return vault

        return await self._database.write(change)

    async def delete(self, vault_id: str) -> None:
        """Remove a vault with its credentials."""

        def change(connection: Connection) -> None:
            _vault(connection, vault_id)
            connection.execute(delete(CREDENTIALS).where(CREDENTIALS.c.vault_id == vault_id))
            connection.execute(delete(VAULTS).where(VAULTS.c.id == vault_id))

        await self._database.write(change)

    async def create_credential(self, vault_id: str, body: CredentialCreate) -> Document:
        """Seal a value and keep it; 409 when the vault has the variable already."""
        auth = auth_of(body.auth, VariableCreate)
        if auth.secret_name.upper().startswith("ANTHROPIC_"):
            raise invalid("auth.secret_name: no variable of a sandbox may be named ANTHROPIC_…")
        injected = locations(HEADERS_ONLY, auth.injection_location)
        now, name = timestamp(self._clock()), self._new_id("vcrd")
        sealed = self._sealed(name, 1, auth.networking.allowed_hosts, auth.secret_value)
        credential = {
            "id": name,
            "type": "vault_credential",
            "vault_id": vault_id,
            "display_name": body.display_name,
            "metadata": body.metadata,
            "auth": {
                "type": SERVED,
                "secret_name": auth.secret_name,
                "networking": msgspec.to_builtins(auth.networking),
                "injection_location": injected,
            },
            "created_at": now,
            "updated_at": now,
            "archived_at": None,
        }

        def change(connection: Connection) -> None:
            _vault(connection, vault_id, open_only=True)
            _check_room(connection, vault_id, auth.secret_name)
            more = {"vault_id": vault_id, "sealed": msgspec.json.encode(sealed)}
            documents.add(connection, CREDENTIALS, credential, **more)

        await self._database.write(change)
        return credential

    async def update_credential(
        self, vault_id: str, credential_id: str, body: CredentialUpdate
    ) -> Document:
        """Change what is given; new hosts need the value again, for it is bound to them."""
        now = timestamp(self._clock())
        auth = None if bytes(body.auth) == bytes(NOTHING) else auth_of(body.auth, VariableUpdate)

        def change(connection: Connection) -> Document:
            credential, sealed = _credential(connection, vault_id, credential_id)
            if credential["archived_at"] or sealed is None:
                raise invalid(f"credential {credential_id} is archived")
            credential |= {
                "display_name": body.display_name or credential["display_name"],
                "metadata": merged(credential["metadata"], body.metadata),
                "updated_at": now,
            }
            if auth is not None:
                credential["auth"], sealed = self._changed(credential, auth, sealed)
            kept = msgspec.json.encode(sealed)
            documents.put(connection, CREDENTIALS, credential, sealed=kept)
            return credential

        return await self._database.write(change)

    async def credential(self, vault_id: str, credential_id: str) -> Document:
        """Return a credential, never its value; 404."""
        found, _ = await self._database.read(
            lambda each: _credential(each, vault_id, credential_id)
        )
        return found

    async def credentials(self, vault_id: str, query: Query, page: Page) -> Document:
        """List a vault's credentials, newest first."""
        await self.get(vault_id)
        of_vault = [CREDENTIALS.c.vault_id == vault_id]
        return await documents.listed(self._database, CREDENTIALS, query, page, of_vault)

    async def archive_credential(self, vault_id: str, credential_id: str) -> Document:
        """End a credential; its value is forgotten."""
        now = timestamp(self._clock())

        def change(connection: Connection) -> Document:
            credential, _ = _credential(connection, vault_id, credential_id)
            return _archive_credential(connection, credential, now)

        return await self._database.write(change)

    async def delete_credential(self, vault_id: str, credential_id: str) -> None:
        """Remove a credential."""

        def change(connection: Connection) -> None:
            _credential(connection, vault_id, credential_id)
            connection.execute(delete(CREDENTIALS).where(CREDENTIALS.c.id == credential_id))

        await self._database.write(change)

    async def check(self, vault_ids: Sequence[str]) -> None:
        """Refuse vaults that a new session cannot have: 400 or 404."""
        if len(set(vault_ids)) != len(vault_ids):
            raise invalid("vault_ids: a vault stands twice")

        def read(connection: Connection) -> None:
            for vault_id in vault_ids:
                _vault(connection, vault_id, open_only=True)

        await self._database.read(read)

    async def of_session(self, vault_ids: Sequence[str]) -> Sequence[Document]:
        """Return the sealed credentials of vaults, the earlier vault's where two have a variable."""

        def read(connection: Connection) -> Sequence[Document]:
            found: dict[str, Document] = {}
            for vault_id in vault_ids:
                query = (
                    select(CREDENTIALS.c.body, CREDENTIALS.c.sealed)
                    .where(CREDENTIALS.c.vault_id == vault_id, CREDENTIALS.c.sealed.is_not(None))
                    .order_by(CREDENTIALS.c.created_at)
                )
                for row in connection.execute(query):
                    given = _given(msgspec.json.decode(row.body)["auth"], row.sealed)
                    found.setdefault(given["variable"], given)
            return list(found.values())

        return await self._database.read(read)

    def _changed(
        self, credential: Document, auth: VariableUpdate, sealed: SealedSecret
    ) -> tuple[Document, SealedSecret]:
        after = dict(credential["auth"])
        after["injection_location"] = locations(
            after["injection_location"], auth.injection_location
        )
        hosts = after["networking"]["allowed_hosts"]
        if auth.networking is not None:
            after["networking"] = msgspec.to_builtins(auth.networking)
        wanted = after["networking"]["allowed_hosts"]
        if auth.secret_value is not None:
            version = sealed.version + 1
            return after, self._sealed(credential["id"], version, wanted, auth.secret_value)
        if wanted != hosts:
            raise invalid(
                "auth.networking: the kept value is bound to its hosts; send secret_value with it"
            )
        return after, sealed

    def _sealed(self, name: str, version: int, hosts: Sequence[str], value: str) -> SealedSecret:
        if self._seal_key is None:
            raise invalid(
                "credentials: this server was started without a key to seal values to; set"
                " `seal_key` in its bootstrap, as `handiwork up` does"
            )
        try:
            return seal(
                self._seal_key,
                tenant=DEFAULT_TENANT,
                name=name,
                version=version,
                hosts=tuple(hosts),
                value=value,
                entropy=self._entropy(ENTROPY_BYTES),
            )
        except ConfigError as refused:
            raise invalid(str(refused)) from None


def _given(auth: Document, sealed: bytes) -> Document:
    return {
        "variable": auth["secret_name"],
        "sealed": msgspec.json.decode(sealed),
        "allowed_hosts": auth["networking"]["allowed_hosts"],
        "locations": [name for name, enabled in auth["injection_location"].items() if enabled],
    }


def _vault(connection: Connection, vault_id: str, *, open_only: bool = False) -> Document:
    vault = documents.read(connection, VAULTS, "vault", vault_id)
    if open_only and vault["archived_at"]:
        raise invalid(f"vault {vault_id} is archived")
    return vault


def _credential(
    connection: Connection, vault_id: str, credential_id: str
) -> tuple[Document, SealedSecret | None]:
    row: Any = connection.execute(
        select(CREDENTIALS.c.body, CREDENTIALS.c.sealed).where(
            CREDENTIALS.c.id == credential_id, CREDENTIALS.c.vault_id == vault_id
        )
    ).first()
    if row is None:
        raise missing("credential", credential_id)
    sealed = msgspec.json.decode(row.sealed, type=SealedSecret) if row.sealed else None
    return msgspec.json.decode(row.body), sealed


def _archive_credential(connection: Connection, credential: Document, now: str) -> Document:
    archived = documents.archive(connection, CREDENTIALS, credential, now)
    connection.execute(
        update(CREDENTIALS).where(CREDENTIALS.c.id == credential["id"]).values(sealed=None)
    )
    return archived


def _check_room(connection: Connection, vault_id: str, variable: str) -> None:
    of_vault = CREDENTIALS.c.vault_id == vault_id
    count = select(func.count()).select_from(CREDENTIALS).where(of_vault)
    if connection.execute(count).scalar_one() >= MAX_CREDENTIALS:
        raise invalid(f"vault {vault_id} holds {MAX_CREDENTIALS} credentials, the most")
    live = select(CREDENTIALS.c.body).where(of_vault, CREDENTIALS.c.archived_at.is_(None))
    for row in connection.execute(live):
        if msgspec.json.decode(row.body)["auth"]["secret_name"] == variable:
            raise WireError(409, f"vault {vault_id} has a credential {variable!r} already")
