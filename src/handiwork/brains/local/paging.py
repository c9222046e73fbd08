"""Lists: what their query says, and their cursors. No I/O."""

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement

from handiwork.brains.local.errors import invalid
from handiwork.brains.local.queue import timestamp

Query = Sequence[tuple[str, str]]
"""Names and values of a query string, decoded, in order."""

_COMPARISONS = ("gt", "gte", "lt", "lte")


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Where a page starts: after the last key of the one before, or `back` before its first."""

    order: Literal["asc", "desc"]
    after: str | int
    back: bool = False


class Page(msgspec.Struct, frozen=True):
    """What part of a list is asked for."""

    limit: int
    order: Literal["asc", "desc"]
    after: str | int | None = None
    back: bool = False

    @property
    def ascending(self) -> bool:
        """Whether rows are read upwards: a page before another is read from its end."""
        return (self.order == "asc") is not self.back

    def condition(self, column: ColumnElement[Any]) -> list[ColumnElement[bool]]:
        """Return the condition that begins the page."""
        if self.after is None:
            return []
        return [column > self.after if self.ascending else column < self.after]

    def ordered(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return the ordering."""
        return column.asc() if self.ascending else column.desc()

    def answer(self, rows: Sequence[tuple[str | int, Any]]) -> dict[str, Any]:
        """Return the list's answer from keys and views, of which one more than the limit was read."""
        return {
            "data": [each for _, each in self._shown(rows)],
            "next_page": self._beside(rows, self.back or len(rows) > self.limit, back=False),
        }

    def answer_both_ways(self, rows: Sequence[tuple[str | int, Any]]) -> dict[str, Any]:
        """Return the answer of a list that also tells the page before."""
        before = len(rows) > self.limit if self.back else self.after is not None
        return {**self.answer(rows), "prev_page": self._beside(rows, before, back=True)}

    def _shown(self, rows: Sequence[tuple[str | int, Any]]) -> Sequence[tuple[str | int, Any]]:
        shown = rows[: self.limit]
        return shown[::-1] if self.back else shown

    def _beside(
        self, rows: Sequence[tuple[str | int, Any]], there: bool, *, back: bool
    ) -> str | None:
        shown = self._shown(rows)
        if not there or not shown:
            return None
        return _encoded(Cursor(self.order, shown[0 if back else -1][0], back))


def first(query: Query, name: str) -> str | None:
    """Return the value of a name, the last one given."""
    return next((value for key, value in reversed(query) if key == name), None)


def every(query: Query, name: str) -> list[str]:
    """Return the values of a list, written with or without brackets."""
    return [value for key, value in query if key in (name, f"{name}[]")]


def flag(query: Query, name: str) -> bool:
    """Return a boolean; absent is false."""
    return first(query, name) == "true"


def number(query: Query, name: str, low: int, high: int) -> int | None:
    """Return an integer within bounds; 400 when it is not one."""
    text = first(query, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and low <= int(text[:12]) <= high):
        raise invalid(f"{name}: must be an integer between {low} and {high}")
    return int(text)


def page(query: Query, *, limit: int, most: int, order: Literal["asc", "desc"]) -> Page:
    """Return what part of a list is asked for; 400 for a cursor that is not ours."""
    size = number(query, "limit", 1, most) or limit
    wanted = first(query, "order") or order
    if wanted not in ("asc", "desc"):
        raise invalid("order: must be asc or desc")
    token = first(query, "page")
    if not token:
        return Page(size, "asc" if wanted == "asc" else "desc")
    cursor = _decoded(token)
    return Page(size, cursor.order, cursor.after, cursor.back)


def moments(query: Query, name: str, column: ColumnElement[Any]) -> list[ColumnElement[bool]]:
    """Return the conditions that `name[gt]` and its like set on a column of timestamps."""
    conditions: list[ColumnElement[bool]] = []
    for comparison in _COMPARISONS:
        text = first(query, f"{name}[{comparison}]")
        if text is None:
            continue
        moment = _moment(text, f"{name}[{comparison}]")
        operators = {
            "gt": column > moment,
            "gte": column >= moment,
            "lt": column < moment,
            "lte": column <= moment,
        }
        conditions.append(operators[comparison])
    return conditions


def _moment(text: str, name: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise invalid(f"{name}: must be an RFC 3339 timestamp") from None
    return timestamp(moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC))


def _encoded(cursor: Cursor) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def _decoded(token: str) -> Cursor:
    try:
        raw = base64.urlsafe_b64decode(token[:512] + "=" * (-len(token[:512]) % 4))
        return msgspec.json.decode(raw, type=Cursor)
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise invalid("page: is not a cursor of this list") from None
