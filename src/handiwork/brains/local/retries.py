"""When a failed request of a model is made again. Pure: chance is an argument."""

from collections.abc import Callable

import msgspec

from handiwork.brains.local.models import ModelFailedError


def _middle() -> float:
    return 0.5


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how fast. `chance` draws from 0 to 1; waits double from the first to the longest."""

    chance: Callable[[], float] = _middle
    most: int = 6
    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    longest_asked_seconds: float = 120.0
    """A provider that asks for more is not waited for."""

    def wait(self, failures: int, error: ModelFailedError) -> float | None:
        """Return the seconds to wait after so many failures in a row, None: give up."""
        if not error.retry or failures > self.most:
            return None
        asked = error.retry_after
        if asked is not None and asked > self.longest_asked_seconds:
            return None
        doubled = self.first_seconds * 2.0 ** (failures - 1)
        jittered = min(self.longest_seconds, doubled) * (0.5 + self.chance() / 2)
        return max(jittered, asked or 0.0)
