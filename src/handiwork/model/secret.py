"""Secrets at rest: what is kept of them, and how rules refer to them."""

import re
from datetime import datetime

import msgspec

from handiwork.model.canonical import NotCanonical, check_pattern, host_covers
from handiwork.model.errors import ConfigError
from handiwork.model.ids import DEFAULT_TENANT, check_name
from handiwork.model.redacted import shown_as_repr

MIN_VALUE_CHARS = 8
MAX_VALUE_CHARS = 8 * 1024

_TEXT = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
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

    __rich_repr__ = shown_as_repr


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


def check_template(template: str) -> tuple[str, ...]:
    """Return the names a header value refers to; ConfigError where it cannot stand in a header."""
    if not _TEXT.fullmatch(template):
        raise ConfigError(
            "must be printable ASCII on one line, not empty, without space at its ends"
        )
    if "${" in _REFERENCE.sub("", template):
        raise ConfigError("has a '${…}' that is not '${secret:NAME}', the only form known")
    return references(template)


def check_secret(name: str, hosts: tuple[str, ...], value: str) -> None:
    """Raise ConfigError unless the secret can be bound, sent in a header and masked.

    The message never repeats the value. A value under eight characters is refused because
    masking it would blot out innocent text.
    """
    check_name("secret", name)
    if not hosts:
        raise ConfigError(f"secret {name!r} needs the hosts it may be sent to")
    for host in hosts:
        if host == "*":
            raise ConfigError(f"secret {name!r}: hosts must be names or '*.' and a name, not '*'")
        try:
            check_pattern(host)
        except NotCanonical as error:
            raise ConfigError(f"secret {name!r}, hosts: {error}") from None
    if not MIN_VALUE_CHARS <= len(value) <= MAX_VALUE_CHARS or not _TEXT.fullmatch(value):
        raise ConfigError(
            f"secret {name!r}: the value must be {MIN_VALUE_CHARS} to {MAX_VALUE_CHARS}"
            " characters of printable ASCII on one line, without space at its ends"
        )


def permits(secret: SealedSecret, host: str) -> bool:
    """Say whether the secret is bound to this canonical host."""
    return any(host_covers(pattern, host) for pattern in secret.hosts)
