import json
import re
from pathlib import Path

import pytest

from handiwork.model.errors import ConfigError
from handiwork.model.policy import (
    AllowRule,
    DenyRule,
    HookRule,
    InjectRule,
    ServiceRule,
    hooks_named,
    parse_policy,
    secrets_named,
)

GOOD = """
name = "triage"
description = "what triage agents may do"

[[rules]]
id = "no-admin"
action = "deny"
reason = "the admin pages are for people"
match = { hosts = ["api.github.com"], paths = ["/admin/*"] }

[[rules]]
id = "gh"
action = "inject"
match = { hosts = ["api.github.com"], methods = ["GET", "POST"], paths = ["/repos/acme/*"] }
inject = [{ header = "Authorization", value = "Bearer ${secret:gh}" }]

[[rules]]
id = "docs"
action = "allow"
match = { hosts = ["docs.python.org", "*.example.org"], schemes = ["https", "http"] }

[[rules]]
id = "db"
action = "service"
match = { hosts = ["db.internal"], ports = [8443] }
service = { name = "db", address = "10.0.0.5", port = 443 }
"""


def _policy(**rule):
    entry = {"id": "one", "action": "allow", "match": {"hosts": ["a.test"]}} | rule
    return json.dumps({"name": "p", "rules": [entry]})


def _inject(header="authorization", value="Bearer ${secret:k}", **match):
    return _policy(
        action="inject",
        match={"hosts": ["a.test"]} | match,
        inject=[{"header": header, "value": value}],
    )


def _service(**service):
    target = {"name": "s", "address": "10.0.0.1", "port": 443} | service
    return _policy(action="service", service=target)


def test_a_policy_reads_from_toml():
    policy = parse_policy(GOOD, format="toml")
    assert [type(rule) for rule in policy.rules] == [DenyRule, InjectRule, AllowRule, ServiceRule]
    assert list(secrets_named(policy)) == [("gh", "gh")]


def test_an_empty_list_of_rules_is_a_policy():
    policy = parse_policy('{"name": "none", "rules": []}', format="json")
    assert (policy.rules, policy.minimum_tier) == ((), "")


def test_a_policy_may_want_a_stronger_tier():
    text = 'name = "p"\nrules = []\nminimum_tier = "gvisor"\n'
    assert parse_policy(text, format="toml").minimum_tier == "gvisor"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not readable as JSON"),
        ('{"name": "p", "name": "q", "rules": []}', "twice"),
        ("[" * 100_000, "not readable"),
        ("[]", "must be a table"),
        ('{"name": "p"}', "rules must be a list"),
        ('{"rules": []}', "name"),
        ('{"name": "P p", "rules": []}', "not valid"),
        ('{"name": "p", "rules": [], "mode": "open"}', "mode"),
        ('{"name": "p", "rules": [], "minimum_tier": "vm"}', "minimum_tier: 'vm' is no tier: use"),
        ('{"name": "p", "rules": [], "minimum_tier": 1}', "minimum_tier"),
        ('{"name": "p", "rules": [7]}', "rule number 1"),
        (_policy(id="A B"), "rule name"),
        (_policy(id="default"), "choose another"),
        (_policy(action="permit"), "permit"),
        (_policy(extra=1), "extra"),
        (_policy(match={"hosts": ["a.test"], "when": "x"}), "when"),
        (_policy(match={"hosts": "a.test"}), "hosts"),
        (_policy(match={}), "hosts"),
        (_policy(match={"hosts": ["A.test"]}), "must be written 'a.test'"),
        (_policy(match={"hosts": ["*a.test"]}), "match.hosts"),
        (_policy(match={"hosts": ["a.test"], "schemes": ["ftp"]}), "ftp"),
        (_policy(match={"hosts": ["a.test"], "ports": [0]}), "match.ports"),
        (_policy(match={"hosts": ["a.test"], "ports": [70000]}), "match.ports"),
        (_policy(match={"hosts": ["a.test"], "ports": ["443"]}), "ports"),
        (_policy(match={"hosts": ["a.test"], "methods": ["get"]}), "capitals"),
        (_policy(match={"hosts": ["a.test"], "paths": ["a/*"]}), "must start with"),
        (_policy(match={"hosts": ["a.test"], "paths": ["/a/../b"]}), "write '/b'"),
        (_policy(match={"hosts": ["a.test"], "paths": ["/a?b=*"]}), "query"),
        (_policy(match={"hosts": ["a.test"], "paths": ["/a%2Fb"]}), "encoded slash"),
        (_policy(match={"hosts": ["a.test"], "paths": ["/a%00"]}), "match.paths"),
        (_policy(action="deny", reason="a\nb"), "reason"),
        (_inject(schemes=["http"]), "never in clear"),
        (_inject(schemes=["https", "http"]), "never in clear"),
        (_inject(header="Host"), "by the proxy itself"),
        (_inject(header="content-LENGTH"), "by the proxy itself"),
        (_inject(header="transfer-encoding"), "by the proxy itself"),
        (_inject(header="Connection"), "by the proxy itself"),
        (_inject(header="a b"), "not a header name"),
        (_inject(header=":path"), "not a header name"),
        (_inject(value="a\r\nb: c"), "printable ASCII"),
        (_inject(value="a\0"), "printable ASCII"),
        (_inject(value=""), "printable ASCII"),
        (_inject(value="${env:HOME}"), "the only form known"),
        (_inject(value="${secret:}"), "the only form known"),
        (_inject(value="${secret:a${secret:b}"), "the only form known"),
        (_service(address="db.internal"), "not an IP address"),
        (_service(address="fe80::1%eth0"), "not an IP address"),
        (_service(address="0.0.0.0"), "no single destination"),
        (_service(port=0), "service.port"),
        (_service(name="A b"), "service.name"),
        (_service(trust_anchor="-----BEGIN CERTIFICATE-----\nAAAA\n-----END"), "PEM"),
        (_service(extra=1), "extra"),
    ],
)
def test_anything_wrong_rejects_the_policy_as_a_whole(text, told):
    with pytest.raises(ConfigError) as caught:
        parse_policy(text, format="json")
    assert told in str(caught.value)


def test_the_message_names_policy_rule_and_field():
    with pytest.raises(ConfigError, match=r"policy 'p', rule 'one', match\.ports: 0"):
        parse_policy(_policy(match={"hosts": ["a.test"], "ports": [0]}), format="json")


def test_two_rules_with_one_id_are_refused():
    one = json.loads(_policy())["rules"][0]
    with pytest.raises(ConfigError, match="used twice"):
        parse_policy(json.dumps({"name": "p", "rules": [one, one]}), format="json")


def test_one_rule_cannot_set_a_header_twice():
    text = _policy(
        action="inject",
        inject=[{"header": "X-Key", "value": "a"}, {"header": "x-key", "value": "b"}],
    )
    with pytest.raises(ConfigError, match="set twice"):
        parse_policy(text, format="json")


def test_a_service_that_injects_does_so_over_https_only():
    rule = json.loads(_service())["rules"][0]
    rule["inject"] = [{"header": "x-key", "value": "v"}]
    rule["match"]["schemes"] = ["http"]
    with pytest.raises(ConfigError, match="never in clear"):
        parse_policy(json.dumps({"name": "p", "rules": [rule]}), format="json")


@pytest.mark.parametrize("guide", ["policy.md", "secret.md"])
def test_the_guides_show_policies_that_hold(guide):
    text = (Path(__file__).parents[3] / "docs" / "guides" / guide).read_text()
    examples = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert examples
    for example in examples:
        named = example if example.startswith("name") else f'name = "example"\n{example}'
        assert parse_policy(named, format="toml").rules


def _hook(hooks=("h",), match=None, **rule):
    return _policy(action="hook", match={"hosts": ["a.test"]} | (match or {}), hooks=hooks, **rule)


def test_a_rule_may_name_hooks_and_what_they_are_granted():
    inject = [{"header": "x-a", "value": "${secret:b}"}]
    text = _hook(["one", "two"], secrets=["a"], body_bytes=10, inject=inject)
    policy = parse_policy(text, format="json")
    [rule] = policy.rules
    assert isinstance(rule, HookRule)
    assert list(hooks_named(policy)) == [("one", "one"), ("one", "two")]
    assert list(secrets_named(policy)) == [("one", "a"), ("one", "b")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (_hook([]), "name 1 to 8 hooks"),
        (_hook([f"h{at}" for at in range(9)]), "name 1 to 8 hooks"),
        (_hook(["h", "h"]), "each once"),
        (_hook(["../h"]), "no hook"),
        (_hook(["h.py"]), "no hook"),
        (_hook("h"), "hooks"),
        (_hook(hook="h"), "hook"),
        (_hook(secrets=["Not Valid"]), "secret"),
        (_hook(body_bytes=-1), "body_bytes"),
        (_hook(body_bytes=(8 << 20) + 1), "body_bytes"),
        (_hook(secrets=["a"], match={"schemes": ["https", "http"]}), "never go in clear"),
        (_hook(inject=[{"header": "host", "value": "x"}]), "written by the proxy"),
        (_hook(inject=[{"header": "x", "value": "y"}], match={"schemes": ["http"]}), "https only"),
        (_policy(hooks=["h"]), "hooks"),
    ],
)
def test_a_hook_rule_with_anything_wrong_is_refused(text, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        parse_policy(text, format="json")
