"""The table of a session's moves, walked by chance."""

import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from handiwork.model.errors import ConflictError
from handiwork.model.session import SessionState
from handiwork.sessions.lifecycle import TABLE, Command, Happening, step

RESTING = {
    SessionState.SLEEPING,
    SessionState.REFUSED,
    SessionState.LOST,
    SessionState.STOPPED,
    SessionState.ENDED,
}


def test_every_state_is_reached_and_can_be_claimed_again() -> None:
    assert {move.state for move in TABLE.values()} == set(SessionState)
    for state in SessionState:
        assert step(state, Happening.CLAIMED).state is SessionState.CLAIMED


@pytest.mark.parametrize("happening", [Happening.STOPPED, Happening.LOST])
def test_whatever_is_under_way_can_be_stopped_and_lost(happening: Happening) -> None:
    for state in SessionState:
        assert step(state, happening).state in RESTING


def test_what_cannot_happen_is_refused() -> None:
    with pytest.raises(ConflictError, match="a session that is sleeping cannot be ready"):
        step(SessionState.SLEEPING, Happening.READY)
    with pytest.raises(ConflictError, match="a session that is unknown cannot be idle"):
        step(None, Happening.IDLE)


class Lifecycle(RuleBasedStateMachine):
    """A session as the runner drives it: what its commands leave of its sandbox and its lease."""

    def __init__(self) -> None:
        super().__init__()
        self.state: SessionState | None = None
        self.held = False
        self.sandbox = "none"

    def move(self, happening: Happening) -> None:
        move = step(self.state, happening)
        for command in move.commands:
            match command:
                case Command.SERVE:
                    self.sandbox = "running"
                case Command.SLEEP if self.sandbox == "running":
                    self.sandbox = "sleeping"
                case Command.CLOSE:
                    self.sandbox = "none"
        self.state = move.state

    @precondition(lambda self: not self.held)
    @rule()
    def claim(self) -> None:
        self.held = True
        self.move(Happening.CLAIMED)

    @precondition(lambda self: self.held and self.state is SessionState.CLAIMED)
    @rule()
    def describe(self) -> None:
        self.move(Happening.HELD)

    @precondition(lambda self: self.held and self.state is SessionState.STARTING)
    @rule()
    def prepare(self) -> None:
        self.move(Happening.READY)

    @precondition(lambda self: self.held and self.state is SessionState.STARTING)
    @rule()
    def refuse(self) -> None:
        self.move(Happening.REFUSED)

    @precondition(
        lambda self: self.held and self.state in (SessionState.ACTIVE, SessionState.REFUSED)
    )
    @rule()
    def rest(self) -> None:
        self.move(Happening.IDLE)
        self.held = False

    @precondition(lambda self: self.held and self.state is not SessionState.CLAIMED)
    @rule()
    def end(self) -> None:
        self.move(Happening.ENDED)
        self.held = False

    @precondition(lambda self: self.held)
    @rule()
    def stop(self) -> None:
        self.move(Happening.STOPPED)
        self.held = False

    @precondition(lambda self: self.held)
    @rule()
    def lose(self) -> None:
        self.move(Happening.LOST)
        self.held = False

    @invariant()
    def a_sandbox_runs_only_under_a_lease(self) -> None:
        assert self.held or self.sandbox != "running"
        assert (self.sandbox == "running") == (self.state is SessionState.ACTIVE)

    @invariant()
    def a_session_without_a_lease_rests(self) -> None:
        assert self.held or self.state is None or self.state in RESTING


TestLifecycle = Lifecycle.TestCase
