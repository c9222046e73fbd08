"""What goes wrong, when: pure, and the same again for the same seed.

A request is named by its route, by the session that it is about and by its number among the same,
so that a plan does not depend on the order in which sessions happen to be served.
"""

import random
from dataclasses import dataclass
from typing import Any

UNFORWARDED = ("status", "reset", "half_close")
"""The brain never sees the request."""
ANSWERED = ("lost", "cut", "malformed", "slow")
"""The brain does what was asked; the answer is what fails."""

STATUSES = (408, 429, 500, 502, 503, 529)
MORE_STATUSES = {"beat": (412,), "stop": (409,), "post": (409,)}
"""Answers that mean something on these routes alone."""

DIE = ("die_before", "die_after")
"""The engine is killed before the brain sees the request, or before it sees the answer."""

STREAM = ("duplicate", "reorder", "delay", "drop", "cut", "half_close", "die")

# Of every route, so many requests of a hundred fail. The queue is shared by all sessions.
RATES = {"poll": 6, "ack": 15, "beat": 8, "stop": 15, "post": 18, "history": 15, "describe": 15}
RATES |= {"open": 12, "event": 9}

SICK_REQUESTS = 12
"""After so many of one kind and session nothing fails any more, so that every session can end."""
DEATHS = 0.04
"""How likely the engine is to die of a session, roughly."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong; `status` and `seconds` where the kind needs them."""

    kind: str
    status: int = 0
    seconds: float = 0.0


class Plan:
    """All faults of one run. `calm` has none: what fails then is not the chaos.

    `stock`: the stories have stock tools alone.
    """

    def __init__(
        self, seed: str, *, calm: bool = False, deaths: float = DEATHS, stock: bool = False
    ) -> None:
        self.seed = seed
        self.stock = stock
        self.deaths = 0.0 if calm else deaths
        self._calm = calm

    def request(self, route: str, subject: str, number: int) -> Fault | None:
        """Return what happens to a request."""
        if self._calm or (number >= SICK_REQUESTS and route != "poll"):
            return None
        dice = self.dice(route, subject, number)
        if route in ("ack", "beat", "post", "stop") and dice.random() < self.deaths / 8:
            return Fault(dice.choice(DIE))
        if dice.randrange(100) >= RATES[route]:
            return None
        kind = dice.choice((*UNFORWARDED, "status", *ANSWERED))
        status = dice.choice((*STATUSES, *MORE_STATUSES.get(route, ())))
        return Fault(kind, status=status, seconds=round(dice.uniform(0.02, 0.6), 3))

    def event(self, subject: str, stream: int, number: int) -> Fault | None:
        """Return what happens to an event of a session's n-th stream."""
        if self._calm or stream >= SICK_REQUESTS:
            return None
        dice = self.dice("event", subject, f"{stream}.{number}")
        if dice.randrange(100) >= RATES["event"]:
            return None
        kind = dice.choice(STREAM[:-1])
        if dice.random() < self.deaths / 2:
            kind = "die"
        return Fault(kind, seconds=round(dice.uniform(0.02, 0.5), 3))

    def dice(self, *name: object) -> random.Random:
        """Return the randomness of one named thing."""
        return random.Random("/".join(map(str, (self.seed, *name))))


@dataclass(frozen=True)
class Story:
    """One session: what its agent does, and what its user does."""

    name: str
    kind: str
    steps: tuple[dict[str, Any], ...]
    turns: int
    allow: bool

    @property
    def asks(self) -> bool:
        return self.kind == "ask"


def story(plan: Plan, index: int) -> Story:
    """Return the n-th session: mostly plain ones, some that ask, some that are interrupted."""
    name = f"s{index}"
    dice = plan.dice("story", name)
    kind = dice.choices(("plain", "ask", "interrupt"), (76, 12, 0 if plan.stock else 12))[0]
    steps = [_step(dice, f"{name}.{number}", plan) for number in range(dice.randint(2, 4))]
    if kind == "ask":
        steps.insert(1, _calls([_bash(f"{name}.asked")]))
    if kind == "interrupt":
        slow = {"key": f"{name}.slow", "seconds": 30.0}
        steps.append(_calls([_call("count", slow), _bash(f"{name}.long", "sleep 30")]))
    turns = 2 if kind == "plain" and dice.random() < 0.2 else 1
    return Story(name, kind, tuple(steps), turns, dice.random() < 0.6)


def _step(dice: random.Random, key: str, plan: Plan) -> dict[str, Any]:
    count = dice.choices((1, 2, 4), (60, 25, 15))[0]
    calls = []
    for number in range(count):
        if dice.random() < 0.35 or plan.stock:
            calls.append(_bash(f"{key}.{number}"))
        else:
            given: dict[str, Any] = {"key": f"{key}.{number}"}
            given["seconds"] = round(dice.choice((0.0, 0.02, 0.3)), 3)
            if dice.random() < plan.deaths / 3:
                given["die_at"] = dice.choice(("begin", "end"))
            calls.append(_call("count", given))
    return _calls(calls)


def _bash(key: str, more: str = "") -> dict[str, Any]:
    """A command that leaves one line a run, and returns the line's number."""
    command = f"echo {key} $(date +%s%N) >> runs; {more or 'true'}; tail -n 1 runs"
    return _call("bash", {"command": command})


def _call(tool: str, given: dict[str, Any]) -> dict[str, Any]:
    return {"tool": tool, "input": given}


def _calls(calls: list[dict[str, Any]]) -> dict[str, Any]:
    return {"calls": calls}
