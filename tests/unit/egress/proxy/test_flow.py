"""A flow on its own: any bytes end in answers or a close, and requests are counted back."""

import asyncio
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from handiwork.egress.decide import compile_layers
from handiwork.egress.proxy.flow import Flow, Origin

HEAD = b"GET / HTTP/1.1\r\nHost: a.example.org\r\n\r\n"


class Loop:
    def time(self) -> float:
        return 1.0

    def call_soon(self, act, *arguments: object) -> None:
        act(*arguments)

    def call_later(self, seconds: float, act) -> None:
        act()


class Transport:
    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


def flow(kind: str = "tls"):
    records: list[dict[str, object]] = []
    binding = SimpleNamespace(
        loop=Loop(),
        plane=SimpleNamespace(clock=lambda: 1.0),
        granted=SimpleNamespace(policy=compile_layers(())),
        identity=SimpleNamespace(tool=""),
        settings=SimpleNamespace(max_requests=10),
        requests=0,
        closed=False,
        faults=[],
        records=records,
        gone=lambda _: None,
        record=lambda **facts: records.append(facts),
    )
    binding.fault = lambda where, error: binding.faults.append(error)
    made = Flow(binding, Origin(kind, "a.example.org", 443))  # type: ignore[arg-type]
    transport = Transport()
    made.connection_made(transport)  # type: ignore[arg-type]
    return made, transport, binding


def test_without_a_policy_everything_is_refused_and_counted_back():
    made, transport, binding = flow()
    made.data_received(HEAD * 3)
    assert transport.written.count(b"HTTP/1.1 403") == 3
    assert (binding.requests, len(binding.records)) == (0, 3)


@given(
    st.lists(st.binary(max_size=60) | st.just(HEAD), max_size=8),
    st.sampled_from(["tls", "clear", "absolute"]),
)
def test_any_bytes_are_survived(pieces: list[bytes], kind: str):
    made, transport, binding = flow(kind)
    for piece in pieces:
        made.data_received(piece)
    made.connection_lost(None)
    assert binding.requests == 0
    assert binding.faults == []
    assert b"HTTP/1.1 200" not in transport.written


@given(st.integers(1, len(HEAD)))
def test_cuts_do_not_matter(cut: int):
    made, transport, _ = flow()
    for start in range(0, len(HEAD), cut):
        made.data_received(HEAD[start : start + cut])
    assert transport.written.count(b"HTTP/1.1 403") == 1


def test_a_fault_of_ours_is_a_refusal():
    made, transport, binding = flow()
    binding.granted = SimpleNamespace(policy=None)
    made.data_received(HEAD)
    assert transport.written.startswith(b"HTTP/1.1 400")
    assert [type(error) for error in binding.faults] == [AttributeError]
    assert asyncio.Protocol in type(made).__mro__
