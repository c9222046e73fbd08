"""Sessions in memory and on disk: every change of one is written before anyone hears of it.

Memory changes first and at once; writes follow in the same order; streams and callers are told
when a write is done. So the disk always holds a prefix of what memory went through, and a process
that dies loses only what nobody was told. A write that fails ends the process for that reason.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, insert, select

from handiwork.brains.local.clock import Clock, NewId
from handiwork.brains.local.documents import Document
from handiwork.brains.local.errors import missing
from handiwork.brains.local.queue import WorkItem, timestamp
from handiwork.brains.local.resources import forget_attached, keep_attached
from handiwork.brains.local.session import Session, loaded
from handiwork.brains.local.skills import versions_of
from handiwork.brains.local.streams import Subscriber, frame
from handiwork.brains.local.tables import (
    ADD_EVENTS,
    DROP_EVENT,
    EVENTS,
    KEEP_BODY,
    KEEP_PROGRESS,
    PROGRESS,
    SESSIONS,
)
from handiwork.brains.local.transcript import COMPACTED, TYPES
from handiwork.brains.local.turn import Event, Outcome, ended
from handiwork.brains.local.webhook_rules import types_of
from handiwork.brains.local.webhooks import Webhooks, keep_deliveries
from handiwork.brains.local.work import WorkQueues, keep_work, work_row
from handiwork.model.ids import DEFAULT_TENANT
from handiwork.store.database import Database

CACHED_SESSIONS = 1000
MAX_SUBSCRIBERS = 1000
CONVERSATION_EVENTS = 20_000
CONVERSATION_BYTES = 128 * 1024 * 1024
_RESULTS = {"user.tool_result": "tool_use_id", "user.custom_tool_result": "custom_tool_use_id"}


class Journal:
    """The sessions that are in use, backed by the database."""

    def __init__(
        self,
        database: Database,
        work: WorkQueues,
        clock: Clock,
        new_id: NewId,
        on_lost_write: Callable[[BaseException], None],
        webhooks: Webhooks,
    ) -> None:
        self._database = database
        self._work = work
        self._clock = clock
        self._new_id = new_id
        self._on_lost_write = on_lost_write
        self._webhooks = webhooks
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    async def load_open(self) -> list[Session]:
        """Take up the sessions whose turn was open when the process ended."""

        def ids(connection: Connection) -> list[str]:
            rows = connection.execute(select(PROGRESS.c.session_id).where(PROGRESS.c.turn_open))
            return [row.session_id for row in rows]

        sessions = [await self.get(session_id) for session_id in await self._database.read(ids)]
        self._work.open_turns.update(each.id for each in sessions if each.turn.needs_hands)
        return sessions

    async def get(self, session_id: str) -> Session:
        """Return a session, from memory or disk; 404 when there is none."""
        session = self._sessions.get(session_id)
        if session is None:
            read = await self._database.read(lambda connection: _read(connection, session_id))
            if read is None:
                raise missing("session", session_id)
            session = self._sessions.setdefault(session_id, read)
            self._evict()
        self._sessions.move_to_end(session_id)
        return session

    async def create(self, session: Session) -> None:
        """Write a new session."""
        row = session.row()
        progress = {**session.progress_row(), "session_id": session.id, "tenant_id": DEFAULT_TENANT}
        self._sessions[session.id] = session
        resources = session.body.resources

        def change(connection: Connection) -> None:
            connection.execute(insert(SESSIONS), row)
            connection.execute(insert(PROGRESS), progress)
            keep_attached(connection, session.id, resources)

        await self._write(session, change, ["session.created"])
        self._evict()

    async def keep(self, session: Session) -> None:
        """Write what rarely changes: title, metadata, tools, resources."""
        session.progress.updated_at = self._clock()
        body, progress = _body_change(session), _progress_change(session)
        resources = session.body.resources

        def change(connection: Connection) -> None:
            connection.execute(KEEP_BODY, body)
            connection.execute(KEEP_PROGRESS, progress)
            keep_attached(connection, session.id, resources)

        await self._write(session, change)

    async def apply(
        self,
        session: Session,
        outcome: Outcome,
        *,
        archived: bool = False,
        keep_body: bool = False,
    ) -> list[Event]:
        """Take an outcome over, write it, tell the streams. Returns the events as they were told.

        An open turn gets its work item in the same write. `archived`: the session ends with it.
        `keep_body`: what rarely changes is written too.
        """
        if session.gone:
            return []
        dropped = [
            {"in_session": session.id, "at": session.progress.waiting_at.pop(event_id)}
            for event_id in sorted(outcome.released)
            if event_id in session.progress.waiting_at
        ]
        events, rows = self._staged(session, outcome)
        items = self._work_for(session, archived=archived)
        body = _body_change(session) if archived or keep_body else None
        progress = _progress_change(session)
        work_rows = [work_row(item) for item in items]

        def change(connection: Connection) -> None:
            if dropped:
                connection.execute(DROP_EVENT, dropped)
            connection.execute(ADD_EVENTS, rows)
            connection.execute(KEEP_PROGRESS, progress)
            if body is not None:
                connection.execute(KEEP_BODY, body)
            keep_work(connection, work_rows)

        await self._write(session, change, types_of(events))
        self._publish(session, events)
        if items:
            self._work.wake(session.body.environment_id)
        return events

    async def delete(self, session: Session) -> None:
        """Remove a session and all of its events; its streams are told and end."""
        session.gone = True
        session.move(ended(session.turn), self._clock())
        self._work.open_turns.discard(session.id)
        items = self._work.end_for(session.body.environment_id, session.id, force=True)
        work_rows = [work_row(item) for item in items]

        def change(connection: Connection) -> None:
            forget_attached(connection, session.id)
            connection.execute(delete(EVENTS).where(EVENTS.c.session_id == session.id))
            connection.execute(delete(PROGRESS).where(PROGRESS.c.session_id == session.id))
            connection.execute(delete(SESSIONS).where(SESSIONS.c.id == session.id))
            keep_work(connection, work_rows)

        await self._write(session, change, ["session.deleted"])
        told = {"type": "session.deleted", "id": self._new_id("sevt")}
        self._publish(session, [{**told, "processed_at": timestamp(self._clock())}])
        self.close_streams(session)
        self._sessions.pop(session.id, None)

    def subscribe(self, session: Session, *, previews: bool = False) -> Subscriber:
        """Open a stream of what happens from now on."""
        subscriber = Subscriber(previews=previews)
        session.subscribers.add(subscriber)
        return subscriber

    def close_streams(self, session: Session | None = None) -> None:
        """End the streams of one session, or all."""
        for each in [session] if session else list(self._sessions.values()):
            for subscriber in each.subscribers:
                subscriber.close()

    async def conversation(
        self, session: Session
    ) -> tuple[list[tuple[int, Event]], tuple[int, str] | None]:
        """Return the events of the conversation by position, and where it was last shortened."""
        if session.writes:
            # What memory knows and the disk does not yet: writes take effect in their order.
            await self._database.write(lambda _: None)
        return await self._database.read(lambda connection: _conversation(connection, session.id))

    async def skills(self, session: Session) -> list[Document]:
        """Return the versions of the skills that the session's agent has."""
        references = session.body.agent.get("skills") or []
        if not references:
            return []
        return await self._database.read(lambda connection: versions_of(connection, references))

    async def earlier_result(self, session: Session, call_id: str) -> Event | None:
        """Return the result that settled a call before, if one did."""
        if call_id in session.recent_results:
            return session.recent_results[call_id]
        row = await self._database.read(
            lambda connection: connection.execute(
                select(EVENTS.c.body).where(
                    EVENTS.c.session_id == session.id, EVENTS.c.call_id == call_id
                )
            ).first()
        )
        return msgspec.json.decode(row.body) if row else None

    def _staged(
        self, session: Session, outcome: Outcome
    ) -> tuple[list[Event], list[dict[str, Any]]]:
        """Change memory; return the stamped events and their rows."""
        events: list[Event] = []
        rows: list[dict[str, Any]] = []
        now = self._clock()
        for untold in outcome.events:
            now = self._clock()
            event = {"id": self._new_id("sevt"), "processed_at": timestamp(now), **untold}
            call_id = event.get(_RESULTS.get(event["type"], ""))
            if call_id is not None:
                session.remember_result(call_id, event)
            rows.append(
                {
                    "session_id": session.id,
                    "position": session.next_position,
                    "tenant_id": DEFAULT_TENANT,
                    "id": event["id"],
                    "type": event["type"],
                    "call_id": call_id,
                    "created_at": timestamp(now),
                    "body": msgspec.json.encode(event),
                }
            )
            if event["processed_at"] is None:
                session.progress.waiting_at[event["id"]] = session.next_position
            session.next_position += 1
            events.append(event)
        session.move(outcome.turn, now)
        return events, rows

    def _work_for(self, session: Session, *, archived: bool) -> list[WorkItem]:
        environment_id = session.body.environment_id
        if session.turn.needs_hands:
            self._work.open_turns.add(session.id)
            return self._work.offer(environment_id, session.id)
        self._work.open_turns.discard(session.id)
        return self._work.end_for(environment_id, session.id, force=False) if archived else []

    async def _write(
        self,
        session: Session,
        change: Callable[[Connection], Any],
        webhook_types: Sequence[str] = (),
    ) -> None:
        """Make a change, with the deliveries that tell of it."""
        session.writes += 1
        staged = self._webhooks.stage(session.id, webhook_types)

        def both(connection: Connection) -> None:
            change(connection)
            keep_deliveries(connection, staged)

        try:
            await self._database.write(both if staged else change)
            self._webhooks.offer(staged)
        except Exception as error:
            self._on_lost_write(error)
            raise
        finally:
            session.writes -= 1

    def _publish(self, session: Session, events: Sequence[Event]) -> None:
        if not session.subscribers:
            return
        data = b"".join(frame(event) for event in events if event["processed_at"] is not None)
        for subscriber in session.subscribers:
            subscriber.send(data)

    def _evict(self) -> None:
        excess = len(self._sessions) - CACHED_SESSIONS
        for session in list(self._sessions.values())[: max(0, excess)]:
            if session.evictable:
                del self._sessions[session.id]


def _conversation(
    connection: Connection, session_id: str
) -> tuple[list[tuple[int, Event]], tuple[int, str] | None]:
    """Read from the last compaction on, the newest first, within limits."""
    columns = select(EVENTS.c.position, EVENTS.c.body).where(EVENTS.c.session_id == session_id)
    newest = columns.order_by(EVENTS.c.position.desc())
    row = connection.execute(newest.where(EVENTS.c.type == COMPACTED).limit(1)).first()
    shortened: Event = msgspec.json.decode(row.body) if row else {"kept_from": 0}
    marker = (int(row.position), str(shortened["summary"])) if row else None
    chosen = newest.where(EVENTS.c.type.in_(TYPES), EVENTS.c.position >= shortened["kept_from"])
    found: list[tuple[int, Event]] = []
    size = 0
    for position, body in connection.execute(chosen.limit(CONVERSATION_EVENTS)):
        size += len(body)
        if size > CONVERSATION_BYTES:
            break
        found.append((position, msgspec.json.decode(body)))
    return found[::-1], marker


def _body_change(session: Session) -> dict[str, Any]:
    row = session.row()
    return {"session": session.id, "archived_at": row["archived_at"], "body": row["body"]}


def _progress_change(session: Session) -> dict[str, Any]:
    return {"session": session.id, **session.progress_row()}


def _read(connection: Connection, session_id: str) -> Session | None:
    row = connection.execute(
        select(SESSIONS.c.body, PROGRESS.c.state)
        .join(PROGRESS, PROGRESS.c.session_id == SESSIONS.c.id)
        .where(SESSIONS.c.id == session_id)
    ).first()
    if row is None:
        return None
    last = connection.execute(
        select(func.max(EVENTS.c.position)).where(EVENTS.c.session_id == session_id)
    ).scalar()
    return loaded(row.body, row.state, 0 if last is None else last + 1)
