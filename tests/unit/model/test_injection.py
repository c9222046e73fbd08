"""Kinds of injection: what rules may say of them, and what they claim."""

import json

import msgspec
import pytest

from handiwork.model.errors import ConfigError
from handiwork.model.injection import (
    BasicInjection,
    BearerInjection,
    CookieInjection,
    HeaderInjection,
    QueryInjection,
    SigV4Injection,
    check_injections,
    claims_of,
    secrets_of,
)
from handiwork.model.policy import InjectRule, Policy, parse_policy, secrets_named, stored_policy

KINDS = (
    HeaderInjection(header="X-Key", value="${secret:a}"),
    BearerInjection(secret="b"),
    QueryInjection(name="key", value="${secret:c}"),
    CookieInjection(name="sid", value="${secret:d}"),
    CookieInjection(name="other", value="fixed"),
)

SIGNED = {
    "kind": "sigv4",
    "region": "eu-west-1",
    "service": "s3",
    "access_key_id": "id",
    "secret_access_key": "key",
}


def policy(*inject: object, schemes: tuple[str, ...] = ("https",)) -> Policy:
    match = {"hosts": ["a.test"], "schemes": schemes}
    rule = {"id": "r", "action": "inject", "match": match, "inject": inject}
    text = json.dumps({"name": "p", "rules": [rule]})
    return parse_policy(text, format="json")


def injected(read: Policy) -> tuple[object, ...]:
    rule = read.rules[0]
    assert isinstance(rule, InjectRule)
    return rule.inject


def test_a_header_needs_no_kind_and_every_kind_reads_back():
    assert injected(policy({"header": "x-key", "value": "${secret:a}"})) == (
        HeaderInjection(header="x-key", value="${secret:a}"),
    )
    read = policy(*msgspec.to_builtins(KINDS))
    assert injected(read) == KINDS
    assert [name for _, name in secrets_named(read)] == ["a", "b", "c", "d"]


def test_a_stored_policy_from_before_there_were_kinds_reads_as_headers():
    read = policy({"header": "x-key", "value": "${secret:a}"})
    raw = msgspec.to_builtins(read)
    del raw["rules"][0]["inject"][0]["kind"]
    assert stored_policy(json.dumps(raw)) == read
    assert stored_policy(msgspec.json.encode(read).decode()) == read


def test_what_is_claimed_and_named():
    assert [claims_of(kind) for kind in KINDS] == [
        ("header 'x-key'",),
        ("header 'authorization'",),
        ("query parameter 'key'",),
        ("header 'cookie'",),
        ("header 'cookie'",),
    ]
    assert secrets_of(BasicInjection(username="${secret:u}", secret="p")) == ("u", "p")
    (signed,) = injected(policy(SIGNED))
    assert isinstance(signed, SigV4Injection)
    assert secrets_of(signed) == ("id", "key")
    assert claims_of(signed)[0] == "header 'authorization'"


@pytest.mark.parametrize("header", ["Authorization", "X-Amz-Date", "x-amz-security-token"])
def test_nothing_else_sets_what_a_signature_sets(header):
    other = {"header": header, "value": "x"}
    for inject in ([SIGNED, other], [other, SIGNED]):
        with pytest.raises(ConfigError, match="set twice by one rule"):
            policy(*inject)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"kind": "magic", "secret": "a"}, "magic"),
        ({"kind": "bearer"}, "secret"),
        ({"kind": "bearer", "secret": "A B"}, "inject.secret"),
        ({"kind": "bearer", "secret": "a", "value": "x"}, "value"),
        ({"kind": "basic", "username": "a:b", "secret": "a"}, "ends the name"),
        ({"kind": "basic", "username": "${env:X}", "secret": "a"}, "only form known"),
        ({"kind": "query", "name": "a&b", "value": "x"}, "inject.name"),
        ({"kind": "query", "name": "a", "value": ""}, "printable ASCII"),
        ({"kind": "cookie", "name": "a=b", "value": "x"}, "inject.name"),
        ({"kind": "cookie", "name": "a", "value": "x; b=c"}, "a cookie's value"),
        ({**SIGNED, "region": "EU west"}, "inject.region"),
        ({**SIGNED, "access_key_id": ""}, "inject.access_key_id"),
        ({**SIGNED, "session_token": "A B"}, "inject.session_token"),
        ("x", "object"),
    ],
)
def test_what_cannot_be_set_is_refused_when_it_is_written(entry: object, told: str):
    with pytest.raises(ConfigError, match=told):
        policy(entry)


@pytest.mark.parametrize(
    "pair",
    [
        (BearerInjection(secret="a"), BasicInjection(secret="b")),
        (BearerInjection(secret="a"), HeaderInjection(header="Authorization", value="x")),
        (QueryInjection(name="K", value="x"), QueryInjection(name="k", value="y")),
        (CookieInjection(name="K", value="x"), CookieInjection(name="k", value="y")),
    ],
)
def test_one_place_is_set_once(pair):
    with pytest.raises(ConfigError, match="set twice"):
        check_injections("here", pair)


def test_a_cookie_and_the_whole_header_do_not_go_together():
    pair = (CookieInjection(name="k", value="x"), HeaderInjection(header="Cookie", value="y"))
    for order in (pair, pair[::-1]):
        with pytest.raises(ConfigError, match="use the kind cookie"):
            check_injections("here", order)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_no_kind_goes_in_clear(kind):
    with pytest.raises(ConfigError, match="never in clear"):
        policy(msgspec.to_builtins(kind), schemes=("https", "http"))
