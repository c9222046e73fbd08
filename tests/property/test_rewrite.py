"""What is written parses back to exactly what was meant, whatever the client sent."""

import httptools
from hypothesis import given
from hypothesis import strategies as st

from handiwork.egress.mask import Mask
from handiwork.egress.rewrite import Framing, NotSendable, request_head, response_head

NAMES = [b"Accept", b"X-A", b"Connection", b"Authorization", b"authorization", b"Host", b"TE"]
NAMES += [b"Transfer-Encoding", b"Content-Length", b"Upgrade", b"Range", b"X-Key", b"Trailer"]
names = st.sampled_from(NAMES) | st.binary(max_size=6)
texts = st.sampled_from([b"x-key", b"authorization, X-A", b"chunked", b"5", b"close", b"gzip"])
fields = st.lists(st.tuples(names, texts | st.binary(max_size=12)), max_size=8)
framings = st.one_of(
    st.just(Framing()),
    st.builds(Framing, length=st.integers(0, 10**12)),
    st.just(Framing(chunked=True)),
    st.just(Framing(close=True)),
)
SET = [(b"Authorization", b"Bearer the-real-secret"), (b"X-Key", b"the-real-secret")]


class _Parsed:
    def __init__(self):
        self.fields, self.complete = [], False

    def on_header(self, name, value):
        self.fields.append((name.lower(), value))

    def on_headers_complete(self):
        self.complete = True


def _values(parsed, name):
    return [value for key, value in parsed.fields if key == name]


@given(fields, framings, st.booleans())
def test_a_request_carries_each_injected_header_once_and_one_framing(sent, framing, identity):
    try:
        head = request_head(
            b"POST", b"/a", b"a.test", sent, SET, identity=identity, framing=framing
        )
    except NotSendable:
        return
    parsed = _Parsed()
    httptools.HttpRequestParser(parsed).feed_data(head)
    assert parsed.complete
    assert parsed.fields[0] == (b"host", b"a.test")
    assert len(_values(parsed, b"host")) == 1
    for name, value in SET:
        assert _values(parsed, name.lower()) == [value]
    lengths = [] if framing.length is None else [b"%d" % framing.length]
    assert _values(parsed, b"content-length") == lengths
    assert _values(parsed, b"transfer-encoding") == ([b"chunked"] if framing.chunked else [])
    assert _values(parsed, b"connection") == ([b"close"] if framing.close else [])
    if identity:
        assert _values(parsed, b"accept-encoding") == [b"identity"]
        assert not _values(parsed, b"range")


@given(fields, framings, st.binary(max_size=12))
def test_a_response_shows_no_secret_and_one_framing(sent, framing, reason):
    mask = Mask([b"the-real-secret"])
    echoed = [*sent, (b"X-Echo", b"the-real-secret")]
    try:
        head = response_head(200, reason, echoed, mask, framing=framing)
    except NotSendable:
        return
    assert b"the-real-secret" not in head
    assert head.count(b"\r\n\r\n") == 1
    lowered = head.lower()
    assert lowered.count(b"\r\ncontent-length:") == (framing.length is not None)
    assert lowered.count(b"\r\ntransfer-encoding:") == framing.chunked


def test_sabotage_copying_the_head_would_be_noticed():
    sent = b"POST /a HTTP/1.1\r\nhost: a.test\r\nAuthorization: x\r\nauthorization: y\r\n\r\n"
    parsed = _Parsed()
    httptools.HttpRequestParser(parsed).feed_data(sent)
    assert _values(parsed, b"authorization") != [SET[0][1]]
