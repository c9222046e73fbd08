"""The ring of a process's last output."""

from hypothesis import given
from hypothesis import strategies as st

from handiwork.sessions.process_log import PIECE_BYTES, ProcessLog

WRITES = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=9000)))


def whole(log, after=0):
    return b"".join(chunk.data for chunk in log.read(after))


def test_what_is_written_is_read_from_any_position():
    log = ProcessLog(100)
    log.add("stdout", b"one ")
    log.add("stdout", b"two ")
    log.add("stderr", b"three")
    assert [(c.at, c.stream, c.data) for c in log.read(0)] == [
        (0, "stdout", b"one two "),
        (8, "stderr", b"three"),
    ]
    assert [(c.at, c.data) for c in log.read(6)] == [(6, b"o "), (8, b"three")]
    assert log.read(13) == []
    assert log.read(99) == []
    assert (log.start, log.end) == (0, 13)


def test_the_oldest_goes():
    log = ProcessLog(2 * PIECE_BYTES)
    log.add("stdout", b"a" * 10 + b"b" * 3 * PIECE_BYTES)
    assert log.end == 10 + 3 * PIECE_BYTES
    assert log.start > 10
    assert log.read(0)[0].at == log.start


@given(writes=WRITES, after=st.integers(0, 60_000), limit=st.integers(PIECE_BYTES, 40_000))
def test_any_writes(writes, after, limit):
    log, everything = ProcessLog(limit), b""
    for stream, data in writes:
        log.add(stream, data)
        everything += data
        assert len(whole(log)) <= limit
    assert log.end == len(everything)
    assert whole(log, after) == everything[max(after, log.start) :]
    assert len(whole(log)) >= min(len(everything), limit - PIECE_BYTES)
    at = None
    for chunk in log.read(after):
        assert at is None or chunk.at == at
        at = chunk.at + len(chunk.data)
