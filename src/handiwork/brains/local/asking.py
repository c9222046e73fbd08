"""Asking the model: one request after the other, until the session waits for others.

What fails for a moment is asked again, what grew too long is shortened; everything that happens is
told as events, and an interrupt ends it at once.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from handiwork.brains.local import compaction
from handiwork.brains.local import turn as rules
from handiwork.brains.local.clock import NewId
from handiwork.brains.local.journal import Journal
from handiwork.brains.local.models import (
    Model,
    ModelFailedError,
    ModelRequest,
    ModelResponse,
    Text,
    Usage,
)
from handiwork.brains.local.offers import offers
from handiwork.brains.local.previews import Preview
from handiwork.brains.local.retries import Retries
from handiwork.brains.local.session import Session
from handiwork.brains.local.surroundings import with_surroundings
from handiwork.brains.local.transcript import COMPACTED, Transcript, transcript
from handiwork.brains.local.turn import Answer, Event, Outcome
from handiwork.observe import log

QUICK_SECONDS = 0.002
"""A model that answers sooner has its request's start told together with its answer."""
MAX_COMPACTIONS = 3
"""In a row, for one answer of the model."""
SQUEEZE = 0.6
"""A conversation that the model finds too long is cut to this share of its room, again and again."""

_log = log.get("asking")


class Exchange(msgspec.Struct, frozen=True):
    """A request that was answered, or failed. `untold`: its start, where nobody heard of it yet."""

    span: str
    untold: list[Event]
    preview: Preview
    result: ModelResponse | ModelFailedError


class Asking:
    """Makes the requests of all sessions; each session has one at a time."""

    def __init__(
        self,
        journal: Journal,
        models: Mapping[str, Model],
        new_id: NewId,
        tasks: asyncio.TaskGroup,
        retries: Retries,
    ) -> None:
        self._journal = journal
        self._models = models
        self._new_id = new_id
        self._tasks = tasks
        self._retries = retries
        self._requests: dict[str, asyncio.Task[Any]] = {}
        self._closing = False

    def cancel(self, session: Session) -> None:
        """Drop the request that is under way."""
        request = self._requests.get(session.id)
        if request is not None:
            request.cancel()

    def cancel_all(self) -> None:
        """Drop every request and make no more; a restart asks again."""
        self._closing = True
        for request in self._requests.values():
            request.cancel()

    async def ask(self, session: Session) -> None:
        """Get one answer of the model and take it over, unless the session moved on."""
        generation = session.turn.generation
        failures = compactions = 0
        if session.turn.rescheduled:
            await self._journal.apply(session, rules.resume(session.turn))
        while session.turn.generation == generation and session.turn.model_due:
            if self._budget_is_used_up(session):
                await self._journal.apply(session, rules.pause(session.turn))
                return
            try:
                await self._answer(session, generation, compactions)
                return
            except _Moved:
                return
            except ModelFailedError as error:
                too_long = error.kind == "context" and compactions < MAX_COMPACTIONS
                compactions += too_long
                failures += not too_long
                if not too_long and not await self._wait(session, failures, error):
                    return

    def _budget_is_used_up(self, session: Session) -> bool:
        """Say whether the budget forbids a request; without prices it cannot be measured."""
        if session.body.budget_cents is None:
            return False
        model = self._models.get(session.body.agent["model"]["id"])
        return session.over_budget or (model is not None and model.profile.prices is None)

    async def _answer(self, session: Session, generation: int, compactions: int) -> None:
        """Ask once, shortening the conversation first where it is full. Raises how it failed."""
        model = self._model(session)
        request = await self._request(session, model, generation, compactions)
        exchange = await self._exchange(session, model, request, generation)
        result = exchange.result
        if isinstance(result, ModelFailedError):
            end = rules.span_end(exchange.span, Usage(), is_error=True)
            await self._journal.apply(session, Outcome(session.turn, [*exchange.untold, end]))
            raise result
        given = Answer(
            response=result,
            span=exchange.span,
            tools=session.body.agent["tools"],
            prices=model.profile.prices,
            budget=session.budget,
        )
        new_id, preview = self._new_id, exchange.preview
        outcome = rules.answer(session.turn, given, preview.message_id, lambda: new_id("sevt"))
        told = Outcome(outcome.turn, [*exchange.untold, *outcome.events], outcome.released)
        await self._journal.apply(session, told)

    def _model(self, session: Session) -> Model:
        name = session.body.agent["model"]["id"]
        model = self._models.get(name)
        if model is None:
            raise ModelFailedError(f"the model {name!r} is not configured", kind="request_failed")
        return model

    async def _wait(self, session: Session, failures: int, error: ModelFailedError) -> bool:
        """Tell of the failure and wait; False when the turn ended with it."""
        seconds = self._retries.wait(failures, error)
        if seconds is None:
            await self._journal.apply(session, rules.fail(session.turn, error))
            return False
        generation = session.turn.generation
        await self._journal.apply(session, rules.reschedule(session.turn, error))
        # An interrupt that came while this was written found nothing to cancel.
        moved = self._closing or session.turn.generation != generation
        if moved or not await self._slept(session, seconds):
            return False
        await self._journal.apply(session, rules.resume(session.turn))
        return True

    async def _request(
        self, session: Session, model: Model, generation: int, compactions: int
    ) -> ModelRequest:
        """Return what the model is asked, with the conversation where it wants that."""
        agent = session.body.agent
        request = rules.request(session.turn, agent["system"] or "")
        profile = model.profile
        if not profile.context_tokens:
            return request
        tools = offers(agent["tools"])
        skills = await self._journal.skills(session)
        system = with_surroundings(request.system, skills, session.body.resources)
        request = msgspec.structs.replace(request, system=system)
        fixed = compaction.fixed_tokens(request.system, tools)
        held = await self._transcript(session, fixed)
        for _ in range(MAX_COMPACTIONS):
            if not compactions and not compaction.is_full(held, profile):
                break
            if not await self._compact(session, model, generation, held):
                break
            held = await self._transcript(session, fixed)
            if compactions:
                break
        room = compaction.room(profile)
        if compactions or held.tokens > room:
            held = compaction.fitted(held, int(room * SQUEEZE**compactions) - fixed)
        return msgspec.structs.replace(request, history=held.messages(), tools=tools)

    async def _transcript(self, session: Session, fixed: int) -> Transcript:
        events, marker = await self._journal.conversation(session)
        return transcript(events, marker, fixed)

    async def _compact(
        self, session: Session, model: Model, generation: int, held: Transcript
    ) -> bool:
        """Put the model's summary in the place of the older part; False when there is none."""
        older, kept = compaction.split(held, model.profile)
        if not older:
            return False
        request = compaction.summary_request(held, older, model.profile)
        exchange = await self._exchange(session, model, request, generation, previews=False)
        result = exchange.result
        response = result if isinstance(result, ModelResponse) else ModelResponse(blocks=())
        end = rules.span_end(
            exchange.span, response.usage, is_error=isinstance(result, ModelFailedError)
        )
        if isinstance(result, ModelFailedError) and (result.retry or result.kind != "context"):
            await self._journal.apply(session, Outcome(session.turn, [*exchange.untold, end]))
            if result.retry:
                raise result
            # A wrong key or an empty account is no reason to forget what was said.
            return False
        said = "".join(block.text for block in response.blocks if isinstance(block, Text))
        compacted: Event = {
            "type": COMPACTED,
            "summary": compaction.summary_of(said, older),
            "kept_from": kept[0].position,
        }
        after = rules.used(session.turn, response.usage, model.profile.prices)
        await self._journal.apply(session, Outcome(after, [*exchange.untold, end, compacted]))
        return True

    async def _exchange(
        self,
        session: Session,
        model: Model,
        request: ModelRequest,
        generation: int,
        *,
        previews: bool = True,
    ) -> Exchange:
        """Make one request. _Moved, with its end told, when the session moved on meanwhile."""
        if self._closing or session.turn.generation != generation:
            raise _Moved
        span = self._new_id("sevt")
        untold: list[Event] = [{"type": "span.model_request_start", "id": span}]
        preview = Preview(session.preview if previews else _unseen, self._new_id)
        asked = self._tasks.create_task(self._respond(session, model, request, preview))
        self._requests[session.id] = asked
        try:
            done, _ = await asyncio.wait({asked}, timeout=QUICK_SECONDS)
            if not done:
                await self._journal.apply(session, Outcome(session.turn, untold))
                untold = []
                preview.begin()
                await asyncio.wait({asked})
        finally:
            del self._requests[session.id]
        if asked.cancelled() or session.turn.generation != generation:
            end = rules.span_end(span, Usage(), is_error=True)
            if not untold:
                await self._journal.apply(session, Outcome(session.turn, [end]))
            raise _Moved
        return Exchange(span, untold, preview, asked.result())

    async def _respond(
        self, session: Session, model: Model, request: ModelRequest, preview: Preview
    ) -> ModelResponse | ModelFailedError:
        """Ask; a failure is returned, for raising it would end the group of all tasks."""
        try:
            return await model.respond(request, preview.tell)
        except ModelFailedError as failed:
            return failed
        except Exception as error:  # noqa: BLE001  a defect of one session must not end the others
            _log.exception("model_defect", session_id=session.id)
            return ModelFailedError(f"the model failed: {type(error).__name__}")

    async def _slept(self, session: Session, seconds: float) -> bool:
        """Wait as for a request; False when an interrupt or the end of the process cut it short."""
        task = self._tasks.create_task(asyncio.sleep(seconds))
        self._requests[session.id] = task
        try:
            await asyncio.wait({task})
        finally:
            del self._requests[session.id]
        return not task.cancelled()


class _Moved(Exception):
    """The session moved on while the model was asked; nothing more is to be told of it."""


def _unseen(_event_id: str, _data: bytes, _starts: bool) -> None:
    """Show no preview: a summary is not said to the user."""
