"""What to do about a memory store: last seen, here and there, path by path. Pure.

A store is synced by passes. A pass sees what the folder holds and what the brain holds, and `plan`
says what to do; `memory/folder.py` and `memory/mount.py` do it and note with `Known` how it went.
Rules: what changed on one side goes to the other; what changed on both is as the brain has it; a
file that is gone is deleted there only after a while, a few at a time, and never when all are gone.
"""

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from handiwork.model.attachment import Memory

DELETE_WAITS_SECONDS = 30.0
_DELETES_AT_LEAST, _DELETES_AT_MOST = 8, 50


class Do(enum.Enum):
    """PULL writes the brain's content here, DROP removes ours; the others change the brain's."""

    PULL = "pull"
    DROP = "drop"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do. `memory` is the brain's, `sha256` what the file here must still be."""

    do: Do
    path: str
    memory: Memory | None = None
    sha256: str = ""


@dataclass(slots=True)
class Known:
    """What one store's passes remember, all of it by path.

    `base` is the content that both sides had at the last pass; `refused` what the brain will never
    take; `sent` what was sent without an answer coming back; `missing` when a file was first seen
    to be gone.
    """

    base: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    sent: dict[str, str] = field(default_factory=dict)
    missing: dict[str, float] = field(default_factory=dict)

    def agree(self, path: str, sha256: str) -> None:
        """Note that both sides have this content."""
        self.base[path] = sha256
        self.refused.pop(path, None)
        self.sent.pop(path, None)
        self.missing.pop(path, None)

    def forget(self, path: str) -> None:
        """Note that neither side has the path."""
        for kept in (self.base, self.refused, self.sent, self.missing):
            kept.pop(path, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a pass does; `restore` says that all is gone here and is to be written anew.

    `lost` are paths whose change here gives way; `held` counts deletes that wait for their turn.
    """

    actions: tuple[Action, ...] = ()
    restore: bool = False
    lost: tuple[str, ...] = ()
    held: int = 0


def plan(
    known: Known,
    here: Mapping[str, str],
    there: Mapping[str, Memory],
    *,
    now: float,
    read_only: bool = False,
    final: bool = False,
) -> Plan:
    """Return what to do, and note in `known` what needs nothing done.

    `here` is the content of each file by its SHA-256, `there` the brain's memories, both by path
    without the leading slash. `final` waives the wait of deletes: no pass comes after.
    """
    _settle_sent(known, there)
    if len(known.base) > 1 and not set(known.base) & set(here):
        return Plan(restore=True)
    wait = 0.0 if final else DELETE_WAITS_SECONDS
    most = delete_cap(len(there))
    actions: list[Action] = []
    lost: list[str] = []
    deletes = held = 0
    for path in sorted({*known.base, *here, *there}):
        action = _one(known, path, here.get(path), there.get(path), read_only=read_only)
        if path in here:
            known.missing.pop(path, None)
        if action is None:
            continue
        if action.do is Do.DELETE:
            since = known.missing.setdefault(path, now)
            if now - since < wait or deletes >= most:
                held += 1
                continue
            deletes += 1
        if action.do is Do.PULL and here.get(path) not in (None, known.base.get(path)):
            lost.append(path)
        actions.append(action)
    return Plan(actions=tuple(actions), lost=tuple(lost), held=held)


def delete_cap(memories: int) -> int:
    """Return how many deletes one pass may send to a store of so many memories."""
    return max(_DELETES_AT_LEAST, min(_DELETES_AT_MOST, math.floor(memories / 4)))


def _settle_sent(known: Known, there: Mapping[str, Memory]) -> None:
    """Take a memory that is what we sent for ours, though the answer never came."""
    for path, sha256 in list(known.sent.items()):
        memory = there.get(path)
        if memory is not None and memory.sha256 == sha256:
            known.base[path] = sha256
        del known.sent[path]


def _one(
    known: Known, path: str, here: str | None, there: Memory | None, *, read_only: bool
) -> Action | None:
    """Decide for one path; None when there is nothing to do."""
    base = known.base.get(path)
    if there is None:
        return _gone_there(known, path, here, base, read_only=read_only)
    if here == there.sha256:
        known.agree(path, here)
        return None
    if there.sha256 != base:
        return Action(Do.PULL, path, there)
    if here is None:
        # Read-only, the file comes back; else its absence is a wish that must prove itself.
        return Action(Do.PULL if read_only else Do.DELETE, path, there)
    if read_only:
        return Action(Do.PULL, path, there)
    if known.refused.get(path) == here:
        return None
    return Action(Do.UPDATE, path, there, here)


def _gone_there(
    known: Known, path: str, here: str | None, base: str | None, *, read_only: bool
) -> Action | None:
    """Decide for a path that the brain does not have: unchanged here it goes, else it is new."""
    if here is None:
        known.forget(path)
        return None
    if here == base:
        return Action(Do.DROP, path, sha256=here)
    if read_only or known.refused.get(path) == here:
        return None
    return Action(Do.CREATE, path, sha256=here)
