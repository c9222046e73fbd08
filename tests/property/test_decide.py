"""The compiled, indexed decision equals the plain reading of the rules."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.egress.decide import compile_layers
from handiwork.model.canonical import host_covers
from handiwork.model.errors import ConfigError
from handiwork.model.injection import HeaderInjection
from handiwork.model.policy import (
    DEFAULT_PORTS,
    AllowRule,
    DenyRule,
    EgressRequest,
    InjectRule,
    Match,
    Policy,
    PolicyLayer,
)

HOSTS = ["a.test", "b.test", "x.a.test", "y.x.a.test", "test", "10.0.0.1"]
PATTERNS = [*HOSTS, "*", "*.a.test", "*.test", "*.x.a.test"]
PORTS = [80, 443, 8443]
METHODS = ["GET", "POST", "TRACE", "CONNECT"]
PATHS = ["/", "/a", "/a/b", "/b", "/ab", "/a%2Fb"]
GLOBS = ["*", "/a*", "/a/*", "/*b", "/a", "/*/*"]


def _some(values):
    return st.lists(st.sampled_from(values), max_size=3, unique=True).map(tuple)


matches = st.builds(
    Match,
    hosts=_some(PATTERNS),
    schemes=_some(["https", "http"]),
    ports=st.none() | _some(PORTS),
    methods=st.none() | _some(METHODS),
    paths=st.none() | _some(GLOBS),
)
injected = st.sampled_from(["x-a", "X-A", "x-b"]).map(
    lambda h: (HeaderInjection(header=h, value="v"),)
)


@st.composite
def layers(draw):
    found = []
    for scope in draw(_some(["tenant", "agent", "session"])):
        rules = []
        for number in range(draw(st.integers(0, 5))):
            match, id = draw(matches), f"r{number}"
            kind = draw(st.sampled_from(["allow", "allow", "deny", "inject"]))
            if kind == "inject":
                rules.append(InjectRule(id=id, match=match, inject=draw(injected)))
            else:
                rules.append((AllowRule if kind == "allow" else DenyRule)(id=id, match=match))
        found.append(PolicyLayer(scope=scope, policy=Policy(name="p", rules=tuple(rules))))
    return tuple(found)


requests = st.builds(
    EgressRequest,
    scheme=st.sampled_from(["https", "http"]),
    host=st.sampled_from(HOSTS),
    port=st.sampled_from(PORTS),
    method=st.sampled_from(METHODS),
    path=st.sampled_from(PATHS),
)


def _plain_match(rule, request):
    match = rule.match
    ports = match.ports if match.ports is not None else (DEFAULT_PORTS[request.scheme],)
    if match.methods is None:
        method = isinstance(rule, DenyRule) or request.method not in ("TRACE", "CONNECT")
    else:
        method = request.method in match.methods
    return (
        any(host_covers(pattern, request.host) for pattern in match.hosts)
        and request.scheme in match.schemes
        and request.port in ports
        and method
    )


def _glob(pattern, path):
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), path, re.DOTALL)


def _plain(layer, request):
    """Return the id of the rule that permits, or None."""
    for rule in layer.policy.rules:
        if not _plain_match(rule, request):
            continue
        paths = rule.match.paths
        if paths is not None and "%2F" in request.path:
            return None
        if paths is None or any(_glob(glob, request.path) for glob in paths):
            return None if isinstance(rule, DenyRule) else rule
    return None


def _compiled_or_none(stack):
    try:
        return compile_layers(stack)
    except ConfigError:
        return None


@given(layers(), requests)
def test_the_index_changes_no_decision(stack, request):
    winners = [_plain(layer, request) for layer in stack]
    compiled = _compiled_or_none(stack)
    if compiled is None:
        return
    for _ in range(2):  # the second time from what is remembered
        decision = compiled.decide(request)
        assert decision.allowed == (bool(stack) and all(winner is not None for winner in winners))
        if decision.allowed:
            expected = [i for w in winners if isinstance(w, InjectRule) for i in w.inject]
            assert list(decision.injections) == expected
        else:
            assert decision.injections == ()
            assert decision.service is None
            assert decision.rules
            assert decision.reason


@given(layers(), requests)
def test_no_header_is_ever_injected_twice(stack, request):
    compiled = _compiled_or_none(stack)
    if compiled is not None:
        headers = [i.header.lower() for i in compiled.decide(request).injections]
        assert len(headers) == len(set(headers))


@given(layers(), requests)
def test_what_is_permitted_may_be_reached(stack, request):
    compiled = _compiled_or_none(stack)
    if compiled is not None and compiled.decide(request).allowed:
        assert compiled.may_reach(request.host)
        assert compiled.may_reach(request.host, scheme=request.scheme, port=request.port)


@given(layers(), layers(), requests)
def test_another_layer_never_widens(stack, more, request):
    narrow, wide = _compiled_or_none(stack + more), _compiled_or_none(stack)
    if stack and narrow is not None and wide is not None and narrow.decide(request).allowed:
        assert wide.decide(request).allowed


@given(layers(), requests)
def test_explain_ends_in_the_decision(stack, request):
    compiled = _compiled_or_none(stack)
    if compiled is not None:
        end = compiled.explain(request)[-1]
        assert (end == "allowed") is compiled.decide(request).allowed


def test_sabotage_a_skipped_layer_would_be_noticed():
    match = Match(hosts=("a.test",))
    allow = PolicyLayer(
        scope="agent", policy=Policy(name="p", rules=(AllowRule(id="a", match=match),))
    )
    empty = PolicyLayer(scope="tenant", policy=Policy(name="p", rules=()))
    request = EgressRequest(scheme="https", host="a.test", port=443, method="GET", path="/")
    skipped = compile_layers((allow,)).decide(request).allowed
    with pytest.raises(AssertionError):
        assert skipped == all(_plain(layer, request) is not None for layer in (allow, empty))
