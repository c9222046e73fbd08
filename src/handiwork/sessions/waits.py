"""What a session waits for, so that none is ever stuck in silence. Bounded; time is an argument."""

from datetime import datetime

import msgspec

from handiwork.model.session import Waiting, WaitingKind

MAX_WAITS = 64
"""So many are kept of one session; it is told as waiting all the same."""

MAX_REASON_CHARACTERS = 500

_Key = tuple[WaitingKind, str, str]


class Waits:
    """The waits of one session, oldest first. One that is told again keeps its `since`."""

    def __init__(self) -> None:
        self._now: dict[_Key, Waiting] = {}
        self._former: dict[_Key, datetime] = {}

    def resume(self, former: tuple[Waiting, ...]) -> None:
        """Remember since when a former run waited; none of them counts until it is told again."""
        self._former = {_key(one): one.since for one in former}

    def add(self, waiting: Waiting) -> bool:
        """Take one in; False when it was known (its newest reason is kept) or there is no room."""
        key = _key(waiting)
        known = self._now.get(key)
        if known is None and len(self._now) >= MAX_WAITS:
            return False
        since = known.since if known else self._former.get(key, waiting.since)
        reason = waiting.reason[:MAX_REASON_CHARACTERS]
        self._now[key] = msgspec.structs.replace(waiting, since=since, reason=reason)
        return known is None

    def remove(
        self, kind: WaitingKind | None = None, *, name: str = "", tool_use_id: str = ""
    ) -> list[Waiting]:
        """End those that fit and return them; what is not named fits all."""
        self._former = {
            key: since
            for key, since in self._former.items()
            if not _fits(key, kind, name, tool_use_id)
        }
        gone = [key for key in self._now if _fits(key, kind, name, tool_use_id)]
        return [self._now.pop(key) for key in gone]

    def all(self) -> tuple[Waiting, ...]:
        """Return what is waited for."""
        return tuple(self._now.values())


def _key(waiting: Waiting) -> _Key:
    return waiting.kind, waiting.name, waiting.tool_use_id


def _fits(key: _Key, kind: WaitingKind | None, name: str, tool_use_id: str) -> bool:
    return kind in (None, key[0]) and name in ("", key[1]) and tool_use_id in ("", key[2])
