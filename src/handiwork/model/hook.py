"""Hooks as operators see them: what is in force of each, and what is wrong with its file."""

import re
from typing import Literal

import msgspec

Stage = Literal["request", "response"]

MAX_HOOKS = 64
MAX_HOOK_BODY_BYTES = 8 << 20
"""Of a body that a hook reads or makes."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)


class HookInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One hook, named after its file. `error` says why the file as it is now is not in force.

    `stages` are those of the version in force; none: there is no version that works.
    `digest` begins the SHA-256 of that version.
    """

    name: str
    stages: tuple[Stage, ...] = ()
    digest: str = ""
    error: str = ""


def is_hook_name(name: str) -> bool:
    """Say whether a file of this stem can be a hook: 1-63 of a-z, 0-9 and `_`, a letter first."""
    return _NAME.fullmatch(name) is not None
