"""What a session may do next: one table, no I/O.

A session moves by what happens to it; each move names what has to be done with its sandbox and its
work item. A happening that the table does not know for a state is a fault of ours.
"""

import enum

import msgspec

from handiwork.model.errors import ConflictError
from handiwork.model.session import SessionState

S = SessionState


class Happening(enum.Enum):
    """What happens to a session."""

    CLAIMED = "claimed"
    HELD = "held"
    READY = "ready"
    REFUSED = "refused"
    IDLE = "idle"
    STOPPED = "stopped"
    LOST = "lost"
    ENDED = "ended"


class Command(enum.Enum):
    """What a move asks for. SLEEP keeps the workspace and frees the rest; CLOSE deletes it all."""

    PREPARE = "prepare"
    SERVE = "serve"
    REFUSE = "refuse"
    SLEEP = "sleep"
    CLOSE = "close"


class Move(msgspec.Struct, frozen=True):
    """The state that follows, and what to do."""

    state: SessionState
    commands: tuple[Command, ...] = ()


_H = Happening
_SLEEP = (Command.SLEEP,)
_CLOSE = (Command.CLOSE,)
_RESTING = (S.SLEEPING, S.REFUSED, S.LOST, S.STOPPED, S.ENDED)
_SERVED = (S.CLAIMED, S.STARTING, S.ACTIVE)

TABLE: dict[tuple[SessionState | None, Happening], Move] = {
    # A work item for a session that rests, or that a former run of ours left in the middle.
    (None, _H.CLAIMED): Move(S.CLAIMED),
    **{(state, _H.CLAIMED): Move(S.CLAIMED) for state in (*_RESTING, *_SERVED)},
    (S.CLAIMED, _H.HELD): Move(S.STARTING, (Command.PREPARE,)),
    (S.STARTING, _H.READY): Move(S.ACTIVE, (Command.SERVE,)),
    (S.STARTING, _H.REFUSED): Move(S.REFUSED, (Command.REFUSE,)),
    (S.ACTIVE, _H.IDLE): Move(S.SLEEPING, _SLEEP),
    # A refused session is still told to the brain, and stays refused until its next work item.
    **{(S.REFUSED, happening): Move(S.REFUSED) for happening in (_H.IDLE, _H.STOPPED, _H.LOST)},
    **{(state, _H.STOPPED): Move(S.STOPPED, _SLEEP) for state in _SERVED},
    **{(state, _H.LOST): Move(S.LOST, _SLEEP) for state in _SERVED},
    **{(state, _H.ENDED): Move(S.ENDED, _CLOSE) for state in (*_RESTING, *_SERVED)},
    # The lease may be lost, or a stop may come, while an end is being written down.
    **{
        (state, happening): Move(state)
        for state in (S.SLEEPING, S.LOST, S.STOPPED, S.ENDED)
        for happening in (_H.STOPPED, _H.LOST)
    },
}


def step(state: SessionState | None, happening: Happening) -> Move:
    """Return the move; ConflictError when it cannot happen in this state."""
    move = TABLE.get((state, happening))
    if move is None:
        told = "unknown" if state is None else state.value
        raise ConflictError(f"a session that is {told} cannot be {happening.value}")
    return move
