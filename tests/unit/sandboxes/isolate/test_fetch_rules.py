"""What a fetch may ask, what is sent for it, and where a redirect leads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.model.errors import ToolFailedError
from handiwork.sandboxes.isolate.fetch_rules import Asked, checked, head, redirected

ASKED = Asked(
    url="https://a.test/x?y#z",
    method="POST",
    headers=(("Authorization", "secret"), ("Content-Type", "text/plain"), ("X-Own", " 1 ")),
    body=b"body",
)


def lines(asked):
    return head(asked).decode("latin-1").split("\r\n")


def test_what_is_sent():
    assert lines(checked(ASKED)) == [
        "POST https://a.test/x?y HTTP/1.1",
        "host: a.test",
        "connection: close",
        "authorization: secret",
        "content-type: text/plain",
        "x-own: 1",
        "accept-encoding: gzip",
        "accept: */*",
        "content-length: 4",
        "",
        "",
    ]


def test_how_the_message_goes_is_ours_to_say():
    names = (
        "Connection",
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Upgrade",
        "Proxy-Connection",
        "TE",
    )
    asked = checked(Asked(url="http://a.test", headers=tuple((name, "x") for name in names)))
    assert asked.headers == ()
    assert lines(asked)[:3] == ["GET http://a.test/ HTTP/1.1", "host: a.test", "connection: close"]


def test_what_it_names_itself_stays():
    own = (("accept", "a/b"), ("accept-encoding", "br"))
    sent = lines(checked(Asked(url="http://a.test", headers=own)))
    assert sent[3:5] == ["accept: a/b", "accept-encoding: br"]
    assert len(sent) == 7


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (Asked(url="ftp://a.test"), "only http and https"),
        (Asked(url="/x"), "only http and https"),
        (Asked(url="http://"), "only http and https"),
        (Asked(url="http://u:p@a.test"), "a password"),
        (Asked(url="http://a.test:99999"), "Port out of range"),
        (Asked(url="http://a.test/ x"), "no URL"),
        (Asked(url="http://a.test/\r\nx: y"), "no URL"),
        (Asked(url="http://a.test/é"), "no URL"),
        (Asked(url="http://[::1"), "IPv6"),
        (Asked(url="http://a.test/" + "x" * 20_000), "no URL"),
        (Asked(url="http://a.test", method="CONNECT"), "no method"),
        (Asked(url="http://a.test", method="trace"), "no method"),
        (Asked(url="http://a.test", method="G T"), "no method"),
        (Asked(url="http://a.test", headers=(("a b", "x"),)), "no header name"),
        (Asked(url="http://a.test", headers=(("a", "x\r\ny: z"),)), "line break"),
        (Asked(url="http://a.test", headers=(("a", "\0"),)), "or the like"),
        (Asked(url="http://a.test", headers=(("a", "x\x0fy"),)), "or the like"),
        (Asked(url="http://a.test", headers=(("a", "x\x7f"),)), "or the like"),
        (Asked(url="http://a.test", headers=(("a", "\u20ac"),)), "no header has"),
        (Asked(url="http://a.test", headers=(("a", "x"),) * 201), "more than 200"),
        (Asked(url="http://a.test", headers=(("a", "x" * 70_000),)), "bytes of them"),
    ],
)
def test_what_is_refused(asked, told):
    with pytest.raises(ToolFailedError, match=told):
        checked(asked)


TEXT = st.text(st.characters(max_codepoint=300), max_size=30)


@given(
    url=st.just("https://a.test/") | TEXT.map("https://a.test/{}".format) | TEXT,
    method=st.just("GET") | TEXT,
    headers=st.lists(st.tuples(st.just("x") | TEXT, TEXT), max_size=4).map(tuple),
    body=st.binary(max_size=3),
)
def test_nothing_that_is_sent_is_two_requests_or_more_headers_than_asked(
    url, method, headers, body
):
    try:
        sent = head(checked(Asked(url=url, method=method, headers=headers, body=body)))
    except ToolFailedError:
        return
    first, *rest = sent.split(b"\r\n")
    assert sent.endswith(b"\r\n\r\n")
    assert sent.count(b"\r\n\r\n") == 1
    assert b"\n" not in sent.replace(b"\r\n", b"")
    assert b"\r" not in sent.replace(b"\r\n", b"")
    assert len(first.split(b" ")) == 3
    assert len(rest) - 2 <= len(headers) + 5


def test_a_redirect_is_followed_as_it_says():
    asked = checked(ASKED)
    for status in (301, 302, 303):
        following = redirected(asked, status, ["/other"])
        assert (following.url, following.method, following.body) == (
            "https://a.test/other",
            "GET",
            b"",
        )
        assert [name for name, _ in following.headers] == ["authorization", "x-own"]
    for status in (307, 308):
        following = redirected(asked, status, ["z"])
        assert (following.url, following.method, following.body) == (
            "https://a.test/z",
            "POST",
            b"body",
        )
    head_only = redirected(checked(Asked(url="http://a.test", method="HEAD")), 303, ["/"])
    assert head_only.method == "HEAD"


@pytest.mark.parametrize("place", ["https://b.test/", "http://a.test/", "https://a.test:444/"])
def test_credentials_stay_with_who_they_are_for(place):
    following = redirected(checked(ASKED), 307, [place])
    assert [name for name, _ in following.headers] == ["content-type", "x-own"]


def test_what_is_no_redirect():
    asked = checked(ASKED)
    assert redirected(asked, 200, ["/x"]) is None
    assert redirected(asked, 304, ["/x"]) is None
    assert redirected(asked, 302, []) is None
    assert redirected(asked, 302, ["/x", "/y"]) is None


@pytest.mark.parametrize(
    "place", ["ftp://b.test", "http://u:p@b.test", "https://b.test:x/", "http://[/"]
)
def test_a_redirect_to_what_cannot_be_fetched_fails(place):
    with pytest.raises(ToolFailedError):
        redirected(checked(ASKED), 302, [place])
