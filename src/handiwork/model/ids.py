"""Names of things: prefixed ids, and the shapes that operators' names must have."""

import base64
import re

from handiwork.model.errors import ConfigError

DEFAULT_TENANT = "default"
"""The one tenant of an installation without accounts; every record carries a tenant all the same."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_ID = re.compile(r"[a-z]{2,12}_[A-Za-z0-9]{8,64}")


def new_id(prefix: str, entropy: bytes) -> str:
    """Return `prefix_…` from at least ten random bytes, which the caller draws."""
    if len(entropy) < 10:
        raise ValueError("an id needs at least ten random bytes")
    return f"{prefix}_{base64.b32encode(entropy).decode().rstrip('=').lower()}"


def is_id(text: str) -> bool:
    """Say whether the text has the shape of an id, ours or the brain's."""
    return _ID.fullmatch(text) is not None


def check_name(kind: str, name: str) -> str:
    """Return the name unchanged, or raise ConfigError: 1-63 of a-z, 0-9, `_`, `.`, `-`."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{kind} name {name[:80]!r} is not valid: use 1-63 of a-z, 0-9, '_', '.', '-',"
            " starting with a letter or digit"
        )
    return name
