"""What a history asks of us."""

from datetime import UTC, datetime, timedelta

from handiwork.brains.history import History
from handiwork.model.session import (
    BrainEvent,
    BrainSessionEnded,
    Interrupted,
    ToolCalled,
    ToolConfirmed,
    ToolSettled,
    TurnIdle,
    TurnRunning,
)
from handiwork.model.tool import Permission, ToolCall

START = datetime(2026, 1, 1, tzinfo=UTC)


def called(
    id_: str, second: int = 0, *, thread: str = "", permission: Permission = Permission.ALLOW
) -> ToolCalled:
    at = START + timedelta(seconds=second)
    return ToolCalled(
        call=ToolCall(
            id=id_,
            session_id="s",
            name="bash",
            input={},
            thread_id=thread,
            permission=permission,
            processed_at=at,
        )
    )


def interrupted(second: int, thread: str = "") -> Interrupted:
    return Interrupted(processed_at=START + timedelta(seconds=second), thread_id=thread)


def pending(*events: BrainEvent) -> list[BrainEvent]:
    history = History()
    for event in events:
        history.add(event)
    return history.pending()


def test_answered_calls_are_settled_whatever_the_order() -> None:
    answer = ToolSettled(tool_use_id="a")
    assert pending(answer, called("a"), called("b")) == [answer, called("b")]


def test_an_interrupt_settles_what_was_processed_before_it() -> None:
    assert pending(called("a", 1), called("b", 3), interrupted(2)) == [
        ToolSettled(tool_use_id="a"),
        called("b", 3),
    ]


def test_an_interrupt_of_a_thread_leaves_other_threads() -> None:
    assert pending(called("a", 1, thread="x"), called("b", 1, thread="y"), interrupted(2, "x")) == [
        ToolSettled(tool_use_id="a"),
        called("b", 1, thread="y"),
    ]


def test_the_latest_interrupt_counts() -> None:
    assert pending(interrupted(5), interrupted(2), called("a", 4)) == [ToolSettled(tool_use_id="a")]


def test_confirmations_come_after_their_calls_and_only_for_open_ones() -> None:
    ask = called("a", permission=Permission.ASK)
    yes, old = (ToolConfirmed(tool_use_id=id_, allowed=True) for id_ in "ab")
    assert pending(yes, old, ask) == [ask, yes]


def test_the_last_state_of_the_turn_comes_last() -> None:
    idle = TurnIdle(stop_reason="requires_action")
    assert pending(TurnRunning(), called("a"), idle) == [called("a"), idle]
    ended = BrainSessionEnded(reason="deleted")
    assert pending(ended, TurnRunning()) == [TurnRunning(), ended]
