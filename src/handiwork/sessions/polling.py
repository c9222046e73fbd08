"""How often each environment's queue is polled: one budget for all of them. Pure.

Time is an argument, in seconds of any steady clock. A poll is open for a second at most, so 60 a
minute keep an environment watched all the time; more of them only serve to take up work that waits.

* No more than the budget begin in any 60 seconds.
* Up to four fifths of it are paced: every environment has its share, whatever the others do. Where the
  shares fall short of 60, those that had no work for long get less than those that had some.
* Questions about sleeping sessions have a tenth of it at most, and count in it.
* The rest is a pool for those that found work or were woken: they poll again at once, and no one
  of them takes more than its part while others want some.
"""

import math
from collections import deque

WINDOW_SECONDS = 60.0
WATCHED = 60.0
"""Polls a minute that leave no moment without an open one."""
PACED_PART = 0.8
ASKED_PART = 0.1
QUIET_SECONDS = 300.0
"""After each such time without work an environment weighs half as much."""
LEAST_WEIGHT = 0.125


class _Environment:
    """What is known of one: when its last paced poll began, its polls from the pool, its work."""

    def __init__(self, now: float) -> None:
        self.paced_at = -math.inf
        self.pooled: deque[float] = deque()
        self.stirred = False
        self.active_at = now


class PollBudget:
    """Says when an environment may be polled; told of every poll and what it found."""

    def __init__(self, per_minute: int) -> None:
        if per_minute < 1:
            raise ValueError("at least one poll a minute")
        self._most = per_minute
        self._paced = per_minute * PACED_PART
        self._begun: deque[float] = deque()
        self._environments: dict[str, _Environment] = {}
        self._asked_at = -math.inf

    def join(self, environment_id: str, now: float) -> None:
        """Count an environment in."""
        self._environments.setdefault(environment_id, _Environment(now))

    def leave(self, environment_id: str) -> None:
        """Count it out: its share is for the others. Its polls still count for their minute."""
        self._environments.pop(environment_id, None)

    def stir(self, environment_id: str, now: float) -> None:
        """Take in that it has work, or that somebody says so: its next poll need not wait."""
        one = self._of(environment_id, now)
        one.stirred, one.active_at = True, now

    def calm(self, environment_id: str, now: float) -> None:
        """Take in that a poll found nothing."""
        self._of(environment_id, now).stirred = False

    def wait_seconds(self, environment_id: str, now: float) -> float:
        """Return how long its next poll has to wait; 0: not at all."""
        one = self._of(environment_id, now)
        self._forget(now)
        if len(self._begun) >= self._most:
            return self._begun[0] + WINDOW_SECONDS - now
        shares = self._shares(now)
        due = one.paced_at + WINDOW_SECONDS / shares[environment_id] - now
        if one.stirred and self._may_draw(one, self._most - math.ceil(sum(shares.values()))):
            return 0.0
        return max(0.0, due)

    def polled(self, environment_id: str, now: float) -> None:
        """Take in that a poll begins."""
        one = self._of(environment_id, now)
        self._begun.append(now)
        if now >= one.paced_at + WINDOW_SECONDS / self._shares(now)[environment_id]:
            one.paced_at = now
        else:
            one.pooled.append(now)

    def ask_wait_seconds(self, now: float) -> float:
        """Return how long the next question about a session has to wait; 0: not at all."""
        self._forget(now)
        wait = self._asked_at + WINDOW_SECONDS / (self._most * ASKED_PART) - now
        if len(self._begun) >= self._most:
            wait = max(wait, self._begun[0] + WINDOW_SECONDS - now)
        return max(0.0, wait)

    def asked(self, now: float) -> None:
        """Take in that a session is asked about."""
        self._asked_at = now
        self._begun.append(now)

    def _of(self, environment_id: str, now: float) -> _Environment:
        self.join(environment_id, now)
        return self._environments[environment_id]

    def _forget(self, now: float) -> None:
        """Drop what is a whole window ago."""
        for begun in (self._begun, *(one.pooled for one in self._environments.values())):
            while begun and begun[0] + WINDOW_SECONDS <= now:
                begun.popleft()

    def _may_draw(self, one: _Environment, pool: int) -> bool:
        """Say whether the pool has a poll for this one."""
        others = self._environments.values()
        wanting = sum(1 for other in others if other.stirred)
        drawn = sum(len(other.pooled) for other in others)
        return drawn < pool and len(one.pooled) < math.ceil(pool / wanting)

    def _shares(self, now: float) -> dict[str, float]:
        """Divide the paced polls of a minute by weight; nobody gets more than it can use."""
        shares: dict[str, float] = {}
        left = self._paced
        wanting = {id_: _weight(one, now) for id_, one in self._environments.items()}
        while wanting:
            unit = left / sum(wanting.values())
            filled = [id_ for id_, weight in wanting.items() if weight * unit >= WATCHED]
            for id_ in filled or list(wanting):
                share = WATCHED if filled else wanting[id_] * unit
                shares[id_] = share
                left -= share
                del wanting[id_]
        return shares


def _weight(one: _Environment, now: float) -> float:
    quiet: float = max(0.0, now - one.active_at)
    return float(max(LEAST_WEIGHT, 0.5 ** (quiet / QUIET_SECONDS)))
