"""What is written on a request in the place of the client's own copies."""

import base64

import pytest

from handiwork.egress.injecting import Written, written
from handiwork.model.errors import SecretMissingError
from handiwork.model.injection import (
    BasicInjection,
    BearerInjection,
    CookieInjection,
    HeaderInjection,
    QueryInjection,
)

VALUES = {"k": "sk+a/b=c&d", "u": "name"}
QUERY = written((QueryInjection(name="key", value="${secret:k}"),), VALUES)
COOKIE = written((CookieInjection(name="sid", value="${secret:u}"),), VALUES)


def test_credentials_stand_in_the_authorization_header():
    assert written((BearerInjection(secret="k"),), VALUES).headers == (
        (b"authorization", b"Bearer sk+a/b=c&d"),
    )
    ((_, value),) = written((BasicInjection(username="${secret:u}", secret="k"),), VALUES).headers
    assert base64.b64decode(value.removeprefix(b"Basic ")) == b"name:sk+a/b=c&d"
    assert written((HeaderInjection(header="X-Key", value="<${secret:u}>"),), VALUES).headers == (
        (b"x-key", b"<name>"),
    )


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("", ""),
        ("a=1&b=%20", "a=1&b=%20&"),
        ("key=mine&a=1&key=again", "a=1&"),
        ("KEY=mine&%6bey=x&k%65y&key[]=1&key%5B0%5D=2&+key=3", ""),
        ("a=1;key=mine&b=2", "b=2&"),
        ("mykey=1&key2=2&=3", "mykey=1&key2=2&=3&"),
    ],
)
def test_the_clients_own_parameter_is_gone(query: str, kept: str):
    assert QUERY.on_target("/p", query) == f"/p?{kept}key=sk%2Ba%2Fb%3Dc%26d"


def test_a_target_without_injection_stays_as_it_is():
    assert Written().on_target("/p", "a&&b") == "/p?a&&b"
    assert Written().on_target("/p", "") == "/p"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([], b""),
        ([b"a=1; b=2"], b"a=1; b=2; "),
        ([b"sid=mine; a=1", b"SID=again"], b"a=1; "),
        ([b"s%69d=x; a=1 sid=y; b=2,sid=z; sid; c=3"], b"c=3; "),
        ([b"mysid=1; sid2=2"], b"mysid=1; sid2=2; "),
    ],
)
def test_the_clients_own_cookie_is_gone(given: list[bytes], kept: bytes):
    fields = [(b"Accept", b"*/*"), *((b"Cookie", value) for value in given)]
    assert COOKIE.on_fields(fields) == ((b"cookie", kept + b"sid=name"),)


def test_a_value_that_would_change_what_stands_around_it_is_refused():
    with pytest.raises(SecretMissingError):
        written((CookieInjection(name="a", value="${secret:k}"),), {"k": "x; admin=1"})
    with pytest.raises(SecretMissingError):
        written((BasicInjection(username="${secret:k}", secret="k"),), {"k": "a:b-long-value"})


def test_nothing_written_shows_itself():
    assert "sk+" not in repr(written((BearerInjection(secret="k"),), VALUES)) + repr(QUERY)
