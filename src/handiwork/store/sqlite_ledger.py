"""The trace of tool calls in the database: two of its writes stand on every call's way."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Update, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from handiwork.model.errors import ConflictError, NotFoundError
from handiwork.model.tool import LedgerEntry, ToolCall, ToolResult
from handiwork.store import rows
from handiwork.store.database import Database
from handiwork.store.tables import microseconds, moment, tool_calls

# The statements of the hot path are built once; building one costs as much as running it.
_ENTRY = (
    tool_calls.c.tenant == bindparam("of_tenant"),
    tool_calls.c.session_id == bindparam("of_session"),
    tool_calls.c.tool_use_id == bindparam("of_call"),
)
_START = insert(tool_calls)
_STORE = (
    update(tool_calls)
    .where(*_ENTRY, tool_calls.c.state == "started")
    .values(state="stored", result=bindparam("new_result"), updated_us=bindparam("us"))
)
_POST = (
    update(tool_calls)
    .where(*_ENTRY, tool_calls.c.state == "stored")
    .values(state="posted", updated_us=bindparam("us"))
)
_REFUSE = (
    update(tool_calls)
    .where(*_ENTRY, tool_calls.c.state.in_(("started", "stored")))
    .values(state="refused", reason=bindparam("why"), updated_us=bindparam("us"))
)
_GET = select(tool_calls).where(*_ENTRY)
_STATE = select(tool_calls.c.state).where(*_ENTRY)


class SqliteLedger:
    """Implements `store.protocol.Ledger`."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    async def start(self, call: ToolCall, at: datetime) -> LedgerEntry:
        """Record the call as started, once."""
        us = microseconds(at)
        values = {
            "tenant": self._tenant,
            "tool_use_id": call.id,
            "session_id": call.session_id,
            "name": call.name,
            "custom": call.custom,
            "state": "started",
            "reason": "",
            "started_us": us,
            "updated_us": us,
        }
        try:
            await self._database.write(lambda to: to.execute(_START, values))
        except IntegrityError:
            raise ConflictError(f"the tool call {call.id!r} was started before") from None
        return LedgerEntry(
            tool_use_id=call.id,
            session_id=call.session_id,
            name=call.name,
            state="started",
            custom=call.custom,
            updated_at=at,
        )

    async def store(self, session_id: str, result: ToolResult, at: datetime) -> None:
        """Keep the result of a started call."""
        values = self._of(session_id, result.tool_use_id) | {
            "new_result": rows.encoded(result),
            "us": microseconds(at),
        }
        await self._database.write(lambda to: self._move(to, _STORE, values))

    async def settle(
        self, session_id: str, tool_use_id: str, at: datetime, *, refused: str = ""
    ) -> None:
        """End the trace; the second time nothing happens."""
        values = self._of(session_id, tool_use_id) | {"us": microseconds(at)}
        if refused:
            values["why"] = refused
        move = _REFUSE if refused else _POST
        await self._database.write(lambda to: self._move(to, move, values, ends=True))

    async def get(self, session_id: str, tool_use_id: str) -> LedgerEntry | None:
        """Return the entry of one call."""
        values = self._of(session_id, tool_use_id)
        row = await self._database.read(lambda at: at.execute(_GET, values).one_or_none())
        return None if row is None else _entry(row)

    async def open(self, session_id: str) -> list[LedgerEntry]:
        """Return what a restart must answer for, oldest first."""
        query = (
            select(tool_calls)
            .where(
                tool_calls.c.tenant == self._tenant,
                tool_calls.c.session_id == session_id,
                tool_calls.c.state.in_(("started", "stored")),
            )
            .order_by(tool_calls.c.started_us, tool_calls.c.tool_use_id)
        )
        found = await self._database.read(lambda at: at.execute(query).all())
        return [_entry(row) for row in found]

    def _of(self, session_id: str, tool_use_id: str) -> dict[str, Any]:
        return {"of_tenant": self._tenant, "of_session": session_id, "of_call": tool_use_id}

    def _move(
        self, to: Connection, move: Update, values: dict[str, Any], *, ends: bool = False
    ) -> None:
        """Apply a move; where it does not fit, say why, but for an end that came before."""
        if to.execute(move, values).rowcount == 1:
            return
        call = values["of_call"]
        state = to.execute(_STATE, self._of(values["of_session"], call)).scalar()
        if state is None:
            raise NotFoundError(f"the tool call {call!r} was never started")
        if not (ends and state in ("posted", "refused")):
            raise ConflictError(f"the tool call {call!r} is {state}; this move needs another state")


def _entry(row: Row[Any]) -> LedgerEntry:
    return LedgerEntry(
        tool_use_id=row.tool_use_id,
        session_id=row.session_id,
        name=row.name,
        state=row.state,
        custom=row.custom,
        result=None if row.result is None else rows.decoded(row.result, ToolResult),
        reason=row.reason,
        updated_at=moment(row.updated_us),
    )
