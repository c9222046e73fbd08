import pytest

from handiwork.egress import rewrite
from handiwork.egress.mask import Mask
from handiwork.egress.rewrite import (
    Framing,
    NotSendable,
    request_head,
    response_head,
    unscannable,
)

SET = [(b"Authorization", b"Bearer real-secret")]
NONE = Mask([])


def _request(headers, set_headers=(), *, identity=False, **framing):
    head = request_head(
        b"GET",
        b"/a?b=c",
        b"a.test",
        headers,
        list(set_headers),
        identity=identity,
        framing=Framing(**framing),
    )
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


def _response(headers, mask=NONE, status=200, reason=b"OK", **framing):
    head = response_head(status, reason, headers, mask, framing=Framing(**framing))
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


def test_the_host_comes_first_and_is_ours():
    lines = _request([(b"Accept", b"*/*"), (b"HOST", b"evil.test"), (b"host", b"two.test")])
    assert lines == [b"GET /a?b=c HTTP/1.1", b"host: a.test", b"Accept: */*"]


def test_every_copy_of_an_injected_header_goes_whatever_its_case():
    headers = [(b"AUTHORIZATION", b"x"), (b"authorization", b"y"), (b"X-Other", b"z")]
    lines = _request(headers, SET)
    assert lines[2:] == [b"X-Other: z", b"Authorization: Bearer real-secret"]


def test_connection_cannot_remove_what_is_injected():
    lines = _request([(b"Connection", b"authorization, close, Host"), (b"X-A", b"1")], SET)
    assert lines[1:] == [b"host: a.test", b"X-A: 1", b"Authorization: Bearer real-secret"]


@pytest.mark.parametrize(
    "name",
    [
        *(b"Connection", b"Keep-Alive", b"Proxy-Connection", b"Proxy-Authorization", b"TE"),
        *(b"Trailer", b"Transfer-Encoding", b"Upgrade", b"Content-Length", b"HTTP2-Settings"),
    ],
)
def test_hop_by_hop_fields_and_framing_are_not_copied(name):
    assert _request([(name, b"x")]) == [b"GET /a?b=c HTTP/1.1", b"host: a.test"]
    assert _response([(name, b"x")]) == [b"HTTP/1.1 200 OK"]


def test_fields_named_by_any_connection_field_go():
    headers = [(b"Connection", b"x-one"), (b"X-One", b"1"), (b"connection", b" X-TWO ")]
    assert len(_request([*headers, (b"x-two", b"2")])) == 2
    assert len(_response([*headers, (b"x-two", b"2")])) == 1


def test_a_flow_with_a_secret_asks_for_readable_answers():
    headers = [
        (b"Accept-Encoding", b"gzip"),
        (b"Range", b"bytes=0-5"),
        (b"If-Range", b"x"),
        (b"Sec-WebSocket-Extensions", b"permessage-deflate"),
        (b"A-IM", b"feed"),
    ]
    assert _request(headers, SET, identity=True)[2:] == [
        b"accept-encoding: identity",
        b"Authorization: Bearer real-secret",
    ]
    assert len(_request(headers)) == 2 + len(headers)


def test_framing_is_what_the_caller_says():
    assert _request([], length=5)[-1] == b"content-length: 5"
    assert _request([], chunked=True)[-1] == b"transfer-encoding: chunked"
    assert _request([], close=True)[-1] == b"connection: close"
    assert _response([], length=0)[-1] == b"content-length: 0"
    with pytest.raises(NotSendable):
        _request([], length=5, chunked=True)


def test_an_upgrade_is_written_by_us():
    headers = [(b"Connection", b"Upgrade"), (b"Upgrade", b"h2c"), (b"Sec-WebSocket-Key", b"k")]
    assert _request(headers, upgrade=b"websocket")[2:] == [
        b"Sec-WebSocket-Key: k",
        b"connection: upgrade",
        b"upgrade: websocket",
    ]
    lines = _response([(b"Sec-WebSocket-Accept", b"k")], status=101, upgrade=b"websocket")
    assert lines[-2:] == [b"connection: upgrade", b"upgrade: websocket"]
    with pytest.raises(NotSendable):
        _request([], upgrade=b"a\r\nb")


@pytest.mark.parametrize(
    "field",
    [
        *((b"x", b"a\r\nb: c"), (b"x", b"a\nb"), (b"x", b"a\rb"), (b"x", b"\0"), (b"", b"a")),
        *((b"x:", b"a"), (b"x y", b"a"), (b"x\r\ny", b"a"), (b"\xe9", b"a")),
    ],
)
def test_a_field_that_breaks_its_line_is_refused(field):
    with pytest.raises(NotSendable):
        _request([field])
    with pytest.raises(NotSendable):
        _request([], [field])
    with pytest.raises(NotSendable):
        _response([field])


@pytest.mark.parametrize(
    ("method", "path", "host"),
    [
        (b"GET ", b"/", b"a"),
        (b"", b"/", b"a"),
        (b"GET", b"a", b"a"),
        (b"GET", b"/ HTTP/1.1", b"a"),
        (b"GET", b"/\r\nx: y", b"a"),
        (b"GET", b"/", b""),
        (b"GET", b"/", b"a b"),
        (b"GET", b"/", b"a\r\nx: y"),
    ],
)
def test_a_start_line_that_is_not_canonical_is_refused(method, path, host):
    with pytest.raises(NotSendable):
        request_head(method, path, host, [], [], identity=False)


def test_every_field_of_an_answer_is_masked():
    secret = b"real-secret"
    headers = [(b"Location", b"/?k=real-secret"), (b"Set-Cookie", b"s=cmVhbC1zZWNyZXQ=")]
    mask = Mask([secret])
    lines = _response([*headers, (b"X-real-secret", b"1")], mask, reason=b"real-secret", length=11)
    head = b"\r\n".join(lines)
    assert secret not in head
    assert b"cmVhbC1zZWNyZX" not in head
    assert lines[-1] == b"content-length: 11"
    assert mask.hits == 4


def test_sabotage_without_the_mask_the_answer_shows_the_secret():
    assert b"real-secret" in b"".join(_response([(b"Location", b"/?k=real-secret")]))


def test_an_answer_points_to_no_other_service():
    assert _response([(b"Alt-Svc", b'h3=":443"')]) == [b"HTTP/1.1 200 OK"]


@pytest.mark.parametrize("status", [0, 99, 1000])
def test_a_status_of_other_than_three_digits_is_refused(status):
    with pytest.raises(NotSendable):
        _response([], status=status)


@pytest.mark.parametrize(
    ("field", "readable"),
    [
        ((b"Content-Encoding", b"gzip"), True),
        ((b"content-encoding", b"identity"), True),
        ((b"Content-Encoding", b" BR "), True),
        ((b"Content-Encoding", b"compress"), False),
        ((b"Content-Encoding", b"gzip, gzip"), False),
        ((b"Transfer-Encoding", b"gzip, chunked"), False),
        ((b"Transfer-Encoding", b"chunked"), True),
        ((b"Sec-WebSocket-Extensions", b"permessage-deflate"), False),
        ((b"Content-Type", b"text/html"), True),
    ],
)
def test_an_answer_that_cannot_be_read_is_told(field, readable):
    assert (unscannable([field]) is None) is readable


def test_two_fields_of_codings_are_two_codings():
    fields = [(b"Content-Encoding", b"gzip"), (b"content-encoding", b"identity, br")]
    assert rewrite.coding(fields) == b"gzip, br"
    assert unscannable(fields)


def test_a_head_whose_body_is_decoded_says_nothing_of_the_compressed_bytes():
    fields = [
        (b"Content-Encoding", b"gzip"),
        (b"Content-MD5", b"x"),
        (b"Accept-Ranges", b"bytes"),
        (b"ETag", b'"a"'),
        (b"etag", b'W/"b"'),
    ]
    head = response_head(200, b"OK", fields, Mask([]), framing=Framing(chunked=True), decoded=True)
    assert head == (
        b'HTTP/1.1 200 OK\r\nETag: W/"a"\r\netag: W/"b"\r\ntransfer-encoding: chunked\r\n\r\n'
    )


def test_a_request_that_wants_trailers_says_so_to_the_next():
    head = request_head(
        b"GET",
        b"/",
        b"h",
        [(b"TE", b"trailers")],
        [],
        identity=False,
        framing=Framing(trailers=True),
    )
    assert head == b"GET / HTTP/1.1\r\nhost: h\r\nconnection: te\r\nte: trailers\r\n\r\n"


@pytest.mark.parametrize(
    "name",
    [
        b"Content-Length",
        b"Transfer_Encoding",
        b"Authorization",
        b"Set-Cookie",
        b"Host",
        b"Content-Encoding",
        b"X-HTTP-Method-Override",
        b"X-Handiwork-Rule",
    ],
)
def test_a_trailer_that_comes_too_late_is_left_out(name):
    assert rewrite.trailers([(name, b"1"), (b"X-Sum", b"2")]) == [(b"X-Sum", b"2")]


@pytest.mark.parametrize(
    "fields",
    [[(b"X", b"1")] * 101, [(b"X", b"a" * 70_000)], [(b"X", b"a\r\nb: c")], [(b"X Y", b"1")]],
)
def test_trailers_that_cannot_be_written_are_refused(fields):
    with pytest.raises(NotSendable):
        rewrite.trailers(fields)


def test_a_trailer_named_as_what_was_injected_is_not_written():
    lines = rewrite.trailer_lines([(b"X_Key", b"1"), (b"X-Sum", b"2")], [(b"x-key", b"s")])
    assert lines == b"X-Sum: 2\r\n"
