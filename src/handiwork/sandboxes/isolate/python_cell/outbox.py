"""What a cell says: its log and its calls, those of one turn together, and how a run ended.

A frame of more than a mebibyte may be one call and nothing else, or the end. A character is six bytes
of JSON at most.
"""

import json
import traceback
from typing import Protocol

BATCH_CHARACTERS = 65_536
LINE_CHARACTERS = 10_000
ERROR_CHARACTERS = 20_000


class Sender(Protocol):
    """Takes frames."""

    def send(self, text: str) -> None:
        """Send one; ValueError when it is too long."""


class Outbox:
    """Holds what waits to be sent."""

    def __init__(self, link: Sender) -> None:
        self._link = link
        self._logs: list[str] = []
        self._calls: list[str] = []
        self._characters = 0

    def log(self, level: str, text: str) -> None:
        """Say a line, cut when it is very long."""
        if len(text) > LINE_CHARACTERS:
            text = f"{text[:LINE_CHARACTERS]}… ({len(text)} characters)"
        self._hold(self._logs, json.dumps([level, text], ensure_ascii=False))

    def call(self, number: int, name: str, argument: str) -> None:
        """Ask for something, with an argument that is JSON; ValueError when it is too long."""
        text = f'{{"id":{number},"n":{json.dumps(name)},"a":{argument}}}'
        if len(text) > BATCH_CHARACTERS:
            self.flush()
            self._link.send(f'{{"t":"turn","c":[{text}]}}')
        else:
            self._hold(self._calls, text)

    def flush(self) -> None:
        """Send what waits."""
        if self._logs or self._calls:
            logs, calls = ",".join(self._logs), ",".join(self._calls)
            self.discard()
            self._link.send(f'{{"t":"turn","l":[{logs}],"c":[{calls}]}}')

    def discard(self) -> None:
        """Forget what waits."""
        self._logs.clear()
        self._calls.clear()
        self._characters = 0

    def succeed(self, value: str) -> None:
        """Tell the end of a run, and its value, which is JSON; ValueError when it is too long."""
        self._end()
        self._link.send(f'{{"t":"done","ok":true,"v":{value}}}')

    def fail(self, error: BaseException, name: str) -> None:
        """Tell the end of a run of the code of this name, and why."""
        self._end()
        told = json.dumps(describe(error, name), ensure_ascii=False)
        self._link.send(f'{{"t":"done","ok":false,"e":{told}}}')

    def _end(self) -> None:
        self._calls.clear()  # nobody waits for them
        self.flush()

    def _hold(self, held: list[str], text: str) -> None:
        if self._characters + len(text) > BATCH_CHARACTERS:
            self.flush()
        held.append(text)
        self._characters += len(text)


def describe(error: BaseException, name: str) -> dict[str, str]:
    """Return kind, message and stack of an error; the stack begins where the code of this name does."""
    kind = getattr(error, "told_name", type(error).__name__)
    try:
        message = str(error)
        calls = traceback.extract_tb(error.__traceback__)
        first = next((at for at, one in enumerate(calls) if one.filename == name), len(calls))
        stack = "".join(traceback.format_list(calls[first:]))
        if isinstance(error, SyntaxError):
            stack = "".join(traceback.format_exception_only(error))
    except Exception:  # noqa: BLE001 -- its class is the guest's: whatever it does, there is an end
        message, stack = "(an error that cannot be shown)", ""
    return {
        "name": str(kind)[:200],
        "message": message[:ERROR_CHARACTERS],
        "stack": stack[-ERROR_CHARACTERS:],
    }
