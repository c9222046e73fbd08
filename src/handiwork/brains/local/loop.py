"""The loop of an agent: what users and tools say goes to the turn, what is due goes to the model."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from handiwork.brains.local import turn as rules
from handiwork.brains.local.asking import Asking
from handiwork.brains.local.clock import NewId
from handiwork.brains.local.errors import WireError, invalid
from handiwork.brains.local.journal import Journal
from handiwork.brains.local.models import Model
from handiwork.brains.local.retries import Retries
from handiwork.brains.local.session import Session
from handiwork.brains.local.shapes import (
    Budget,
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
from handiwork.brains.local.turn import (
    Event,
    EventRefusedError,
    Outcome,
    Turn,
    UnknownCallError,
    cents,
)


class Loop:
    """Runs the turns of all sessions; its tasks live in the group it is given."""

    def __init__(
        self,
        journal: Journal,
        models: Mapping[str, Model],
        new_id: NewId,
        tasks: asyncio.TaskGroup,
        retries: Retries | None = None,
    ) -> None:
        self._journal = journal
        self._models = models
        self._new_id = new_id
        self._tasks = tasks
        self._closing = False
        self._asking = Asking(journal, models, new_id, tasks, retries or Retries())

    async def send(self, session: Session, events: Sequence[UserEvent]) -> list[Event]:
        """Take a user's events, all or none; they are durable when this returns.

        A result for a call that has one already changes nothing and gets the first one back.
        """
        if session.body.archived_at:
            raise invalid(f"session {session.id} is terminated: it accepts no events")
        if session.over_budget and any(isinstance(event, UserMessage) for event in events):
            raise invalid(
                f"session {session.id} reached its budget: it accepts results, confirmations and"
                " interrupts only, until the budget is raised or removed"
            )
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

    def budget_of(self, agent: Mapping[str, Any], budget: Budget | None) -> int | None:
        """Return a budget's cents; 400 when the agent's model has no price to measure it by."""
        if budget is None:
            return None
        name = agent["model"]["id"]
        model = self._models.get(name)
        if model is None or model.profile.prices is None:
            raise WireError(
                400,
                f"budget: the model {name!r} has no list price",
                {"reason": "model_not_budgetable"},
            )
        return int(budget.max_list_cost.amount)

    def budget_after(self, session: Session, budget: Budget | None) -> int | None:
        """Return what a session's budget is changed to: one can be raised or removed, not added."""
        if budget is None:
            return None
        if session.body.budget_cents is None:
            raise WireError(
                400,
                "budget: a session that was created without one takes none",
                {"reason": "budget_create_only"},
            )
        most = self.budget_of(session.body.agent, budget)
        if most is not None and most <= cents(session.turn.cost or 0):
            raise WireError(
                400,
                f"budget: the session cost {cents(session.turn.cost or 0)} cents already",
                {"reason": "budget_not_raised"},
            )
        return most

    async def reconsider(self, session: Session) -> None:
        """Go on with a turn that its budget stopped, if the budget permits it by now."""
        if session.turn.paused and not session.over_budget:
            await self._journal.apply(session, rules.resume(session.turn))
            self.advance(session)

    def cancel(self, session: Session) -> None:
        """Drop the request that is under way."""
        self._asking.cancel(session)

    def close(self) -> None:
        """Drop the requests that are under way; a restart asks again."""
        self._closing = True
        self._asking.cancel_all()

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
                await self._asking.ask(session)
        finally:
            session.asking = False


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
