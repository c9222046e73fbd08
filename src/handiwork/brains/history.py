"""What a whole history of events asks of us now: pure, filled event by event, asked once."""

from datetime import datetime

from handiwork.model.session import (
    BrainEvent,
    BrainSessionEnded,
    Interrupted,
    SessionChanged,
    ToolCalled,
    ToolConfirmed,
    ToolSettled,
    TurnIdle,
    TurnRunning,
)
from handiwork.model.tool import ToolCall


class Interrupts:
    """The newest interrupt of each thread, of all threads under the empty name."""

    def __init__(self) -> None:
        self._marks: dict[str, datetime] = {}

    def add(self, event: Interrupted) -> None:
        """Take one in; an older one changes nothing."""
        former = self._marks.get(event.thread_id)
        if former is None or former < event.processed_at:
            self._marks[event.thread_id] = event.processed_at

    def covers(self, call: ToolCall) -> bool:
        """Say whether the call was processed at or before an interrupt of its thread."""
        marks = [self._marks.get(thread) for thread in {"", call.thread_id}]
        at = call.processed_at
        return at is not None and any(mark is not None and at <= mark for mark in marks)


class History:
    """Calls, answers, confirmations and interrupts of a session so far, in any order."""

    def __init__(self) -> None:
        self._calls: dict[str, ToolCalled] = {}
        self._answered: set[str] = set()
        self._confirmed: dict[str, ToolConfirmed] = {}
        self._interrupts = Interrupts()
        self._turn: TurnIdle | TurnRunning | None = None
        self._ended: BrainSessionEnded | None = None
        self.changed = ""
        """The newest change of tools or resources, by its event's id."""

    def add(self, event: BrainEvent) -> None:
        """Take one event in."""
        match event:
            case ToolCalled():
                self._calls[event.call.id] = event
            case ToolSettled():
                self._answered.add(event.tool_use_id)
            case ToolConfirmed():
                self._confirmed[event.tool_use_id] = event
            case Interrupted():
                self._interrupts.add(event)
            case TurnIdle() | TurnRunning():
                self._turn = event
            case SessionChanged():
                self.changed = event.id
            case BrainSessionEnded():
                self._ended = event

    def pending(self) -> list[BrainEvent]:
        """Return what matters now: settled calls, then open ones, their confirmations, the turn."""
        settled: list[BrainEvent] = [ToolSettled(tool_use_id=id_) for id_ in self._answered]
        calls: list[BrainEvent] = []
        for called in self._calls.values():
            if called.call.id in self._answered:
                continue
            if self._interrupts.covers(called.call):
                settled.append(ToolSettled(tool_use_id=called.call.id))
            else:
                calls.append(called)
        confirmed = [
            self._confirmed[event.call.id]
            for event in calls
            if isinstance(event, ToolCalled) and event.call.id in self._confirmed
        ]
        turn = [self._turn] if self._turn is not None else []
        ended = [self._ended] if self._ended is not None else []
        return [*settled, *calls, *confirmed, *turn, *ended]
