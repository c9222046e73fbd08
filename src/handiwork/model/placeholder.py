"""Placeholders: what stands in a sandbox's environment for a secret that only the proxy may write.

A placeholder is random, of one session, and worth something on that session's way out alone: there
it is replaced in headers, for the hosts that its secret is bound to.
"""

import base64
import re

import msgspec

from handiwork.model.errors import ConfigError
from handiwork.model.secret import SealedSecret

ENTROPY_BYTES = 25
MAX_PLACEHOLDERS = 64
"""Of one session."""

PREFIX = b"hwph_"
_FORM = re.compile(PREFIX + rb"[a-z2-7]{40}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class Placeholder(msgspec.Struct, frozen=True, kw_only=True):
    """The text that the sandbox sees as the variable's value, and the secret it stands for."""

    variable: str
    text: str
    sealed: SealedSecret


class KeptPlaceholder(msgspec.Struct, frozen=True, kw_only=True):
    """What is on record of one: its text stays the same for as long as its session lives.

    `sealed` is what the session brought along; None where the secret is the operator's, or the
    session does not bring it any more.
    """

    variable: str
    text: str
    sealed: SealedSecret | None = None


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """A secret that a session brings along, to be known in its sandbox as a variable."""

    variable: str
    sealed: SealedSecret


def new_placeholder(entropy: bytes) -> str:
    """Return a text that stands for a secret, from 25 random bytes that the caller draws."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"a placeholder takes {ENTROPY_BYTES} random bytes")
    return PREFIX.decode() + base64.b32encode(entropy).decode().lower()


def placeholders_in(text: bytes) -> tuple[bytes, ...]:
    """Return what looks like a placeholder, ours or another's, each once."""
    return tuple(dict.fromkeys(_FORM.findall(text))) if PREFIX in text else ()


def check_variable(name: str) -> str:
    """Return the name unchanged; ConfigError unless it can name an environment variable."""
    if not _VARIABLE.fullmatch(name):
        raise ConfigError(
            f"variable {name[:80]!r} is not valid: use 1-64 of A-Z, a-z, 0-9, '_',"
            " not starting with a digit"
        )
    return name
