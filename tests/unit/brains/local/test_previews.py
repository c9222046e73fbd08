"""Previews: held until the request was told, and then without gaps."""

import itertools
import json

from handiwork.brains.local import previews
from handiwork.brains.local.previews import Preview


def made():
    sent: list[tuple[str, dict, bool]] = []
    numbers = itertools.count(1)

    def send(event_id: str, data: bytes, starts: bool) -> None:
        sent.append((event_id, json.loads(data.split(b"data: ")[1]), starts))

    return Preview(send, lambda prefix: f"{prefix}_{next(numbers)}"), sent


def test_nothing_is_sent_before_the_request_was_told():
    preview, sent = made()
    preview.tell(0, "a")
    assert sent == []
    preview.begin()
    preview.tell(0, "b")
    preview.tell(1, "c")
    assert [(each[0], each[2]) for each in sent] == [
        ("sevt_1", True),
        ("sevt_1", False),
        ("sevt_1", False),
        ("sevt_2", True),
        ("sevt_2", False),
    ]
    assert sent[0][1]["event"] == {"type": "agent.message", "id": "sevt_1"}
    assert sent[1][1]["delta"]["content"] == {"type": "text", "text": "a"}
    assert (preview.message_id(0), preview.message_id(5)) == ("sevt_1", "sevt_3")


def test_one_that_was_held_too_long_is_not_shown_with_gaps(monkeypatch):
    monkeypatch.setattr(previews, "MAX_HELD", 2)
    preview, sent = made()
    for _ in range(3):
        preview.tell(0, "x")
    preview.begin()
    preview.tell(0, "y")
    assert sent == []
