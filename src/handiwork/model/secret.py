"""Secrets at rest: what is kept of them, and how rules refer to them."""

import re
from datetime import datetime

import msgspec

from handiwork.model.ids import DEFAULT_TENANT

_REFERENCE = re.compile(r"\$\{secret:([a-z0-9][a-z0-9_.-]{0,62})\}")


class SealedSecret(msgspec.Struct, frozen=True, kw_only=True):
    """An egress secret that only the proxy can open.

    Ephemeral X25519, HKDF-SHA256, AES-256-GCM; tenant, name, version and hosts are bound as
    associated data. `hosts` (exact or `*.`) is where it may be injected, and nowhere else.
    """

    tenant: str = DEFAULT_TENANT
    name: str
    version: int
    hosts: tuple[str, ...]
    ephemeral_key: bytes
    nonce: bytes
    ciphertext: bytes

    def __repr__(self) -> str:
        return f"SealedSecret({self.tenant}/{self.name} v{self.version})"


class SecretInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the API tells of a secret; there is no way to read a value back."""

    name: str
    version: int
    hosts: tuple[str, ...]
    created_at: datetime
    updated_at: datetime


def references(template: str) -> tuple[str, ...]:
    """Return the names of the secrets that `${secret:NAME}` refers to, in order."""
    return tuple(_REFERENCE.findall(template))


def fill(template: str, values: dict[str, str]) -> str:
    """Replace each reference by its value; KeyError names a missing one."""
    return _REFERENCE.sub(lambda found: values[found.group(1)], template)
