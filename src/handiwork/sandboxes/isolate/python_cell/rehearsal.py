"""What is done once in the zygote, so that no cell does it first: each way through a run, with a host that is played.

A cell shares the zygote's memory until it writes to it. What the interpreter writes into code that it has run
a few times, and what a library makes at its first use, is there before the fork.
"""

import json
import linecache
import sys
from typing import Any

from .session import Session

TIMES = 20
"""An interpreter that adapts itself to code has done so by then."""
_CODE = """
import json, re
print(json.dumps({"a": [1, 2.5, None, True]}))
words = re.findall(r"[a-z]+", "some words")
found = json.loads('{"b": {"c": "d"}}')
counted = {word: len(word) for word in sorted(words)}
print(f"{found['b']['c']!r}", " ".join(counted), sum(counted.values()))
await workspace.stat(path="a")
{"words": words, "bytes": b"1"}
"""
_FUNCTION = "async def main():\n    return await codemode.one({'a': 1})"
_FAILURE = "raise ValueError('no')"


class _Host:
    """Answers every call with an empty object."""

    def __init__(self) -> None:
        self._asked: list[int] = []

    def send(self, text: str) -> None:
        """Take a frame."""
        self._asked += [one["id"] for one in json.loads(text).get("c", ())]

    def receive(self, wait_seconds: float | None) -> Any:
        """Return the answers to what was asked."""
        del wait_seconds
        answers = [{"id": number, "ok": True, "v": {}} for number in self._asked]
        self._asked.clear()
        return {"t": "settled", "s": answers}


def rehearse() -> None:
    """Run some code in sessions that end with it."""
    outputs = sys.stdout, sys.stderr
    for code in (_CODE, _FUNCTION, _FAILURE):
        session = Session(_Host())
        for _ in range(TIMES):
            session.run(code, "/workspace/code")
    sys.stdout, sys.stderr = outputs
    linecache.clearcache()
