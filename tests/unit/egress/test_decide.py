import pytest

from handiwork.egress.decide import compile_layers
from handiwork.model.errors import ConfigError
from handiwork.model.injection import HeaderInjection
from handiwork.model.policy import (
    AllowRule,
    DenyRule,
    EgressRequest,
    HookRule,
    HookUse,
    InjectRule,
    Match,
    Policy,
    PolicyLayer,
    ServiceRule,
    ServiceTarget,
)


def _layer(*rules, scope="agent", name="p"):
    return PolicyLayer(scope=scope, policy=Policy(name=name, rules=rules))


def _allow(id="a", **match):
    return AllowRule(id=id, match=Match(**({"hosts": ("a.test",)} | match)))


def _deny(id="d", reason="", **match):
    return DenyRule(id=id, reason=reason, match=Match(**({"hosts": ("a.test",)} | match)))


def _inject(id="i", header="authorization", **match):
    injection = HeaderInjection(header=header, value="Bearer ${secret:k}")
    match = Match(**({"hosts": ("a.test",)} | match))
    return InjectRule(id=id, match=match, inject=(injection,))


def _service(id="s", address="10.0.0.1", **match):
    target = ServiceTarget(name="db", address=address, port=8443)
    return ServiceRule(id=id, match=Match(**({"hosts": ("a.test",)} | match)), service=target)


def _ask(host="a.test", scheme="https", port=443, method="GET", path="/"):
    return EgressRequest(scheme=scheme, host=host, port=port, method=method, path=path)


def _decide(*layers, **request):
    return compile_layers(layers).decide(_ask(**request))


def test_without_a_layer_everything_is_denied():
    decision = _decide()
    assert not decision.allowed
    assert decision.rules == ("default",)
    assert not compile_layers(()).may_reach("a.test")


def test_a_present_empty_layer_denies():
    decision = _decide(_layer(_allow()), _layer(scope="tenant", name="none"))
    assert not decision.allowed
    assert decision.rules == ("agent:p/a", "tenant:none/default")


def test_the_first_rule_that_matches_rules():
    assert not _decide(_layer(_deny(), _allow())).allowed
    assert _decide(_layer(_allow(), _deny())).allowed
    assert _decide(_layer(_deny(paths=("/x*",)), _allow())).allowed


def test_a_refusal_says_why():
    decision = _decide(_layer(_deny(reason="not this one")))
    assert decision.reason == "not this one"
    assert decision.rules == ("agent:p/d",)
    assert "GET https://a.test:443" in _decide(_layer(_deny())).reason


def test_a_rule_without_hosts_matches_nothing():
    assert not _decide(_layer(_allow(hosts=()))).allowed


@pytest.mark.parametrize(
    ("request_", "allowed"),
    [
        ({}, True),
        ({"host": "x.a.test"}, False),
        ({"host": "x.b.test"}, True),
        ({"host": "b.test"}, False),
        ({"port": 8443}, False),
        ({"scheme": "http", "port": 80}, False),
        ({"scheme": "http", "port": 443}, False),
        ({"method": "TRACE"}, False),
        ({"method": "CONNECT"}, False),
        ({"method": "PURGE"}, True),
    ],
)
def test_every_field_of_a_match_counts(request_, allowed):
    assert _decide(_layer(_allow(hosts=("a.test", "*.b.test"))), **request_).allowed is allowed


def test_trace_passes_only_where_it_is_named():
    assert _decide(_layer(_allow(methods=("TRACE",))), method="TRACE").allowed
    assert not _decide(_layer(_deny(), _allow(methods=("TRACE",))), method="TRACE").allowed


@pytest.mark.parametrize(
    ("glob", "path", "allowed"),
    [
        ("/a", "/a", True),
        ("/a", "/a/b", False),
        ("/a/*", "/a/b/c", True),
        ("/a/*", "/a", False),
        ("*.js", "/x/y.js", True),
        ("/a*b*c", "/a1b2c", True),
        ("/a*b*c", "/a1c2b", False),
        ("/ab*ba", "/aba", False),
        ("*", "/anything", True),
        ("/a*", "/A", False),
    ],
)
def test_globs_on_the_path(glob, path, allowed):
    assert _decide(_layer(_allow(paths=(glob,))), path=path).allowed is allowed


def test_a_hostile_path_against_many_stars_ends_soon():
    glob = "/" + "*a" * 40 + "*b"
    assert not _decide(_layer(_allow(paths=(glob,))), path="/" + "a" * 30_000).allowed


def test_a_path_with_an_encoded_slash_is_judged_by_no_path_rule():
    limited = _layer(_deny(paths=("/admin/*",)), _allow())
    decision = _decide(limited, path="/x%2Fadmin")
    assert not decision.allowed
    assert "encoded slash" in decision.reason
    assert decision.rules == ("agent:p/d",)
    assert _decide(_layer(_allow()), path="/@scope%2Fname").allowed


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/ok;v=1/b", True),
        ("/admin", False),
        ("/admin;v=1", False),
        ("/admin;v=1/users", False),
        ("/;v=1/admin/users", False),
        ("/ok/;/x", True),
    ],
)
def test_a_parameter_in_a_path_does_not_lead_past_a_rule(path, allowed):
    rules = _layer(_deny(paths=("/admin", "/admin/*")), _allow())
    assert _decide(rules, path=path).allowed is allowed


def test_parameters_are_free_where_no_path_is_judged():
    assert _decide(_layer(_allow()), path="/admin;v=1").allowed


def test_injections_come_from_all_layers_and_the_service_from_one():
    decision = _decide(
        _layer(_inject(header="x-a"), scope="tenant"), _layer(_service(), scope="agent")
    )
    assert decision.allowed
    assert [injection.header for injection in decision.injections] == ["x-a"]
    assert decision.service is not None
    assert decision.service.address == "10.0.0.1"


def test_an_injection_is_not_given_where_another_layer_denies():
    decision = _decide(_layer(_inject()), _layer(_deny(), scope="tenant"))
    assert not decision.allowed
    assert decision.injections == ()
    assert decision.service is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (_inject(), _inject()),
        (_inject(), _inject(header="AUTHORIZATION")),
        (_inject(hosts=("*",)), _inject()),
        (_inject(hosts=("*.test",)), _inject(hosts=("a.test",))),
        (_inject(hosts=("*.test",)), _inject(hosts=("*.b.test",))),
        (_inject(paths=("/a/*",)), _inject(paths=("/a/b",))),
        (_inject(methods=("GET",)), _inject()),
        (_service(), _service()),
        (_service(), _service(address="10.0.0.2")),
    ],
)
def test_two_layers_that_could_set_one_thing_are_refused(one, other):
    with pytest.raises(ConfigError, match="could both set"):
        compile_layers((_layer(one), _layer(other, scope="tenant")))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (_inject(), _inject(header="x-key")),
        (_inject(), _inject(hosts=("b.test",))),
        (_inject(hosts=("*.a.test",)), _inject(hosts=("a.test",))),
        (_inject(ports=(443,)), _inject(ports=(8443,))),
        (_inject(methods=("GET",)), _inject(methods=("POST",))),
        (_inject(paths=("/a/*",)), _inject(paths=("/b/*",))),
        (_inject(paths=("/a/*",)), _inject(paths=("/b",))),
        (_inject(), _service()),
    ],
)
def test_disjoint_layers_are_taken(one, other):
    compile_layers((_layer(one), _layer(other, scope="tenant")))


def test_one_layer_may_inject_one_header_in_several_rules():
    assert _decide(_layer(_inject(id="one", paths=("/x",)), _inject(id="two"))).allowed


def test_may_reach_knows_scheme_and_port():
    compiled = compile_layers((_layer(_deny(ports=(443,)), _allow(ports=(443, 8443))),))
    assert compiled.may_reach("a.test")
    assert compiled.may_reach("a.test", port=8443)
    assert not compiled.may_reach("a.test", port=443)
    assert not compiled.may_reach("a.test", scheme="http")
    assert not compiled.may_reach("b.test")


def test_may_reach_needs_every_layer():
    layers = (_layer(_allow()), _layer(_allow(schemes=("http",)), scope="tenant"))
    assert not compile_layers(layers).may_reach("a.test")


def test_explain_tells_each_rule_and_the_end():
    layer = _layer(_deny(methods=("POST",)), _allow(id="other", hosts=("b.test",)), _allow())
    lines = compile_layers((layer,)).explain(_ask())
    assert lines == [
        "agent:p: 1 of 3 rules are for other hosts",
        "agent:p/d: does not match the method GET",
        "agent:p/a: matches, allow",
        "allowed",
    ]
    assert compile_layers((layer,)).explain(_ask(port=1))[-2:] == [
        "agent:p/default: no rule matched, denied",
        "denied: no rule of agent:p permits GET https://a.test:1",
    ]


def test_what_is_remembered_has_a_limit():
    compiled = compile_layers((_layer(_allow(hosts=("*",))),))
    for number in range(5000):
        assert compiled.decide(_ask(host=f"h{number}.test", method=f"M{number}")).allowed
    assert len(compiled._destinations) <= 2048
    for number in range(200):
        assert compiled.decide(_ask(method=f"M{number}")).allowed
    assert len(compiled._destinations["a.test"].narrowed) <= 64


def test_sabotage_a_removed_deny_rule_is_noticed():
    guarded = (_deny(paths=("/admin*",)), _allow())
    assert not _decide(_layer(*guarded), path="/admin").allowed
    assert _decide(_layer(*guarded[1:]), path="/admin").allowed


def _hook(*hooks, id="h", **rule):
    return HookRule(id=id, match=Match(hosts=("a.test",)), hooks=hooks, **rule)


def test_hooks_come_from_all_layers_with_what_each_rule_grants():
    one = _hook("x", "y", secrets=("k",), body_bytes=9)
    decision = _decide(_layer(one), _layer(_allow(), scope="tenant"), _layer(_hook("z"), name="q"))
    assert decision.hooks == (
        HookUse(name="x", secrets=("k",), body_bytes=9),
        HookUse(name="y", secrets=("k",), body_bytes=9),
        HookUse(name="z"),
    )
    assert not _decide(_layer(one), _layer(_deny(), scope="tenant")).hooks
    assert not _decide(_layer(_allow(), one)).hooks


def test_a_rule_with_hooks_injects_and_two_layers_cannot_set_one_header():
    inject = (HeaderInjection(header="authorization", value="${secret:k}"),)
    layers = (_layer(_hook("x", inject=inject)), _layer(_inject(), scope="tenant"))
    assert _decide(layers[0]).injections == inject
    with pytest.raises(ConfigError, match="authorization"):
        compile_layers(layers)
