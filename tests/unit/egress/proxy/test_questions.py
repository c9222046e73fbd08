"""Messages with a length, however they are cut."""

from hypothesis import given
from hypothesis import strategies as st

from handiwork.egress.proxy.questions import Questions


class Transport:
    def __init__(self) -> None:
        self.written = b""
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True


def questions(answer):
    transport = Transport()
    made = Questions(answer, lambda _: None, lambda _: None)
    made.connection_made(transport)  # type: ignore[arg-type]
    return made, transport


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=10), st.integers(1, 50))
def test_each_message_is_answered_however_it_is_cut(messages: list[bytes], cut: int):
    asked: list[bytes] = []

    def answer(query: bytes) -> bytes:
        asked.append(query)
        return query[::-1]

    made, transport = questions(answer)
    raw = b"".join(len(message).to_bytes(2, "big") + message for message in messages)
    for start in range(0, len(raw), cut):
        made.data_received(raw[start : start + cut])
    assert asked == messages
    assert transport.written == b"".join(
        len(message).to_bytes(2, "big") + message[::-1] for message in messages
    )


def test_no_reply_is_no_bytes():
    made, transport = questions(lambda _: b"")
    made.data_received(b"\0\x01x")
    assert transport.written == b""


def test_silence_and_answers_that_are_not_read_end_it():
    made, transport = questions(lambda _: b"")
    made.overdue(29.0)
    assert not transport.aborted
    made.overdue(31.0)
    assert transport.aborted
    made, transport = questions(lambda _: b"")
    made.pause_writing()
    assert transport.aborted


def test_what_is_not_handed_over_yet_is_not_overdue_and_can_be_dropped():
    transport = Transport()
    made = Questions(lambda _: b"", lambda _: None, lambda _: None)
    made.overdue(1e9)
    made.abort()
    assert not transport.aborted
    made.connection_made(transport)  # type: ignore[arg-type]
    assert transport.aborted
