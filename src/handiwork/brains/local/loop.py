"""The loop of an agent: what users and tools say goes to the turn, what is due goes to the model."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from handiwork.brains.local import turn as rules
from handiwork.brains.local.clock import NewId
from handiwork.brains.local.errors import invalid
from handiwork.brains.local.journal import Journal
from handiwork.brains.local.models import Model, ModelFailedError, ModelResponse
from handiwork.brains.local.session import Session
from handiwork.brains.local.shapes import (
    UserCustomToolResult,
    UserEvent,
    UserInterrupt,
    UserMessage,
    UserToolConfirmation,
    UserToolResult,
    result_of,
    text_of,
    wire_event,
)
from handiwork.brains.local.turn import Event, EventRefusedError, Outcome, Turn, UnknownCallError
from handiwork.observe import log

QUICK_SECONDS = 0.002
"""A model that answers sooner has its request's start told together with its answer."""

_log = log.get("loop")


class Loop:
    """Runs the turns of all sessions; its tasks live in the group it is given."""

    def __init__(
        self, journal: Journal, models: Mapping[str, Model], new_id: NewId, tasks: asyncio.TaskGroup
    ) -> None:
        self._journal = journal
        self._models = models
        self._new_id = new_id
        self._tasks = tasks
        self._closing = False
        self._requests: dict[str, asyncio.Task[ModelResponse | ModelFailedError]] = {}

    async def send(self, session: Session, events: Sequence[UserEvent]) -> list[Event]:
        """Take a user's events, all or none; they are durable when this returns.

        A result for a call that has one already changes nothing and gets the first one back.
        """
        if session.body.archived_at:
            raise invalid(f"session {session.id} is terminated: it accepts no events")
        earlier = await self._earlier_results(session, events)
        outcome, echoed, repeated = self._combined(session.turn, events, earlier)
        if any(isinstance(event, UserInterrupt) for event in events):
            self.cancel(session)
        told = await self._journal.apply(session, outcome) if outcome.events else []
        self.advance(session)
        by_id = {event["id"]: event for event in told} | repeated
        return [by_id[event_id] for event_id in echoed]

    def advance(self, session: Session) -> None:
        """Ask the model if that is due and nobody does already."""
        if session.turn.model_due and not session.asking and not self._closing:
            session.asking = True
            self._tasks.create_task(self._ask_until_it_waits(session))

    def cancel(self, session: Session) -> None:
        """Drop the request that is under way."""
        request = self._requests.get(session.id)
        if request is not None:
            request.cancel()

    def close(self) -> None:
        """Drop the requests that are under way; a restart asks again."""
        self._closing = True
        for request in self._requests.values():
            request.cancel()

    async def _earlier_results(
        self, session: Session, events: Sequence[UserEvent]
    ) -> dict[str, Event]:
        """Look up the results of calls that nothing waits for."""
        pending = {call.id for call in session.turn.pending}
        found: dict[str, Event] = {}
        for event in events:
            call_id = _call_id(event)
            if call_id is not None and call_id not in pending:
                earlier = await self._journal.earlier_result(session, call_id)
                if earlier is not None:
                    found[call_id] = earlier
        return found

    def _combined(
        self, turn: Turn, events: Sequence[UserEvent], earlier: dict[str, Event]
    ) -> tuple[Outcome, list[str], dict[str, Event]]:
        """Return one outcome of all events, the ids to answer with, and results told before."""
        told: list[Event] = []
        released: set[str] = set()
        echoed: list[str] = []
        repeated: dict[str, Event] = {}
        for event in events:
            wire = wire_event(event, self._new_id("sevt"))
            try:
                outcome = _applied(turn, event, wire)
            except UnknownCallError as unknown:
                first = earlier.get(unknown.call_id)
                if first is None:
                    raise invalid(
                        f"{unknown.call_id} is not the id of a tool call that waits for a result"
                    ) from None
                repeated[first["id"]] = first
                echoed.append(first["id"])
                continue
            except EventRefusedError as refused:
                raise invalid(str(refused)) from None
            turn = outcome.turn
            told += outcome.events
            released |= outcome.released
            echoed.append(wire["id"])
        # A message that waited and began its turn within one request is told once, as processed.
        told = [
            event
            for event in told
            if event.get("id") not in released or "processed_at" not in event
        ]
        return Outcome(turn, told, frozenset(released)), echoed, repeated

    async def _ask_until_it_waits(self, session: Session) -> None:
        try:
            while session.turn.model_due and not self._closing:
                await self._ask(session)
        finally:
            session.asking = False

    async def _ask(self, session: Session) -> None:
        """Make one request of the model and take over its answer, unless it came too late."""
        generation = session.turn.generation
        agent = session.body.agent
        span = self._new_id("sevt")
        start: list[Event] = [{"type": "span.model_request_start", "id": span}]
        request = self._tasks.create_task(self._respond(session))
        self._requests[session.id] = request
        try:
            done, _ = await asyncio.wait({request}, timeout=QUICK_SECONDS)
            if not done:
                await self._journal.apply(session, Outcome(session.turn, start))
                start = []
                await asyncio.wait({request})
        finally:
            del self._requests[session.id]
        if request.cancelled() or session.turn.generation != generation:
            end = rules.span_end(span, 0, 0, is_error=True)
            if not start:
                await self._journal.apply(session, Outcome(session.turn, [end]))
            return
        outcome = self._answered(session, request, span, agent["tools"])
        told = Outcome(outcome.turn, [*start, *outcome.events], outcome.released)
        await self._journal.apply(session, told)

    def _answered(
        self,
        session: Session,
        request: asyncio.Task[ModelResponse | ModelFailedError],
        span: str,
        tools: Sequence[Mapping[str, Any]],
    ) -> Outcome:
        response = request.result()
        if isinstance(response, ModelFailedError):
            end = rules.span_end(span, 0, 0, is_error=True)
            outcome = rules.fail(session.turn, str(response))
            return Outcome(outcome.turn, [end, *outcome.events], outcome.released)
        return rules.answer(session.turn, response, tools, span, lambda: self._new_id("sevt"))

    async def _respond(self, session: Session) -> ModelResponse | ModelFailedError:
        """Ask; a failure is returned, for raising it would end the group of all tasks."""
        agent = session.body.agent
        model = self._models[agent["model"]["id"]]
        try:
            return await model.respond(rules.request(session.turn, agent["system"] or ""))
        except ModelFailedError as failed:
            return failed
        except Exception as error:  # noqa: BLE001  a defect of one session must not end the others
            _log.exception("model_defect", session_id=session.id)
            return ModelFailedError(f"the model failed: {type(error).__name__}")


def _call_id(event: UserEvent) -> str | None:
    if isinstance(event, UserToolResult):
        return event.tool_use_id
    return event.custom_tool_use_id if isinstance(event, UserCustomToolResult) else None


def _applied(turn: Turn, event: UserEvent, wire: Event) -> Outcome:
    match event:
        case UserMessage():
            return rules.message(turn, wire, text_of(event.content))
        case UserInterrupt():
            return rules.interrupt(turn, wire)
        case UserToolConfirmation():
            return rules.confirmation(
                turn,
                wire,
                event.tool_use_id,
                allow=event.result == "allow",
                reason=event.deny_message or "",
            )
        case UserToolResult():
            return rules.result(turn, wire, "tool", event.tool_use_id, result_of(event))
        case UserCustomToolResult():
            return rules.result(turn, wire, "custom", event.custom_tool_use_id, result_of(event))
