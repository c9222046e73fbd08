"""Previews of a message that is still being said: `event_start` and `event_delta`. No I/O."""

from collections.abc import Callable

from handiwork.brains.local.clock import NewId
from handiwork.brains.local.streams import frame

MAX_HELD = 1024
"""Pieces that may wait for the start of their request to be told; without them there is no preview."""


class Preview:
    """The preview of one request. Nothing is sent before the start of the request was told."""

    def __init__(self, send: Callable[[str, bytes, bool], None], new_id: NewId) -> None:
        self._send = send
        self._new_id = new_id
        self._ids: dict[int, str] = {}
        self._held: list[tuple[int, str]] | None = []

    def tell(self, block: int, text: str) -> None:
        """Take the next piece of a block's text."""
        if self._held is None:
            self._show(block, text)
        elif len(self._held) < MAX_HELD:
            self._held.append((block, text))

    def begin(self) -> None:
        """Send what waited, and from now on every piece at once."""
        held, self._held = self._held or [], None
        if len(held) < MAX_HELD:
            for block, text in held:
                self._show(block, text)
        else:
            self._send = _to_nobody

    def message_id(self, block: int) -> str:
        """Return the id of the event that carries the whole block."""
        if block not in self._ids:
            self._ids[block] = self._new_id("sevt")
        return self._ids[block]

    def _show(self, block: int, text: str) -> None:
        known = block in self._ids
        event_id = self.message_id(block)
        if not known:
            start = {"type": "event_start", "event": {"type": "agent.message", "id": event_id}}
            self._send(event_id, frame(start), True)
        content = {"type": "text", "text": text}
        delta = {"type": "content_delta", "index": 0, "content": content}
        told = {"type": "event_delta", "event_id": event_id, "delta": delta}
        self._send(event_id, frame(told), False)


def _to_nobody(_event_id: str, _data: bytes, _starts: bool) -> None:
    """Leave a message without preview."""
