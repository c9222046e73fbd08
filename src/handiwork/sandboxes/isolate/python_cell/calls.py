"""Calls of the host: each a future, all that were made in one turn sent together."""

import asyncio
from typing import Any

from .link import Host
from .outbox import Outbox
from .values import to_json


class CallError(Exception):
    """What the host answered to a call that failed; `told_name` is the kind of its error."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.told_name = name


class Calls:
    """Those of one cell. Ids rise, so that an answer to a former run meets nobody."""

    def __init__(self, link: Host, outbox: Outbox) -> None:
        self._link = link
        self._outbox = outbox
        self._last = 0
        self._pending: dict[int, asyncio.Future[Any]] = {}

    @property
    def pending(self) -> bool:
        """Whether an answer is to come."""
        return bool(self._pending)

    def begin(self) -> None:
        """Forget those of a former run."""
        self._pending.clear()

    def call(self, name: str, argument: object) -> asyncio.Future[Any]:
        """Call the host; what is returned is to be awaited, and goes on meanwhile."""
        future = asyncio.get_running_loop().create_future()
        self._last += 1
        self._outbox.call(self._last, name, to_json(argument))
        self._pending[self._last] = future
        return future

    def ask(self, name: str, argument: object) -> Any:
        """Call the host and stand still until it answers; CallError when it refuses."""
        self._last += 1
        number = self._last
        self._outbox.call(number, name, to_json(argument))
        self._outbox.flush()
        while True:
            for answer in self.settle(self._link.receive(None)):
                if answer["id"] == number:
                    if answer["ok"]:
                        return answer.get("v")
                    raise _error(answer)

    def settle(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Give answers to who awaits them; returns those that nobody does."""
        others = []
        for answer in message.get("s", ()):
            future = self._pending.pop(answer["id"], None)
            if future is None:
                others.append(answer)
            elif not future.done():
                if answer["ok"]:
                    future.set_result(answer.get("v"))
                else:
                    future.set_exception(_error(answer))
        return others


def _error(answer: dict[str, Any]) -> CallError:
    told = answer.get("e") or {}
    return CallError(str(told.get("name", "Error")), str(told.get("message", "the call failed")))
