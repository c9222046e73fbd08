"""Any text is a policy that holds or a ConfigError, and what holds compiles."""

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from handiwork.egress.decide import compile_layers
from handiwork.model.errors import ConfigError
from handiwork.model.policy import PolicyLayer, parse_policy
from handiwork.model.sandbox import TIERS, is_weaker

words = st.sampled_from(
    ["a.test", "*", "*.a", "GET", "/a*", "https", "http", "default", "${x}", ""]
)
words |= st.text(max_size=6)
scalars = words | st.none() | st.booleans() | st.integers(-2, 70000) | st.floats(allow_nan=False)
lists = st.lists(words | st.integers(0, 65536), max_size=3)
matches = st.dictionaries(
    st.sampled_from(["hosts", "schemes", "ports", "methods", "paths", "odd"]), lists | scalars
)
injections = st.dictionaries(st.sampled_from(["header", "value"]), scalars)
services = st.dictionaries(
    st.sampled_from(["name", "address", "port", "trust_anchor"]),
    scalars | st.just("10.0.0.1"),
)
rules = st.fixed_dictionaries(
    {"id": words, "action": st.sampled_from(["allow", "deny", "inject", "service", "hook"])},
    optional={
        "match": matches,
        "inject": st.lists(injections, max_size=2),
        "service": services,
        "reason": scalars,
    },
)
policies = st.fixed_dictionaries(
    {"name": words | st.just("p"), "rules": st.lists(rules | scalars, max_size=3)},
    optional={"description": scalars, "minimum_tier": scalars | st.sampled_from(TIERS)},
)


def _holds(text, form):
    try:
        policy = parse_policy(text, format=form)
    except ConfigError:
        return
    compile_layers((PolicyLayer(scope="agent", policy=policy),))
    assert parse_policy(msgspec.json.encode(policy).decode(), format="json") == policy
    assert policy.minimum_tier in ("", *TIERS)


@given(st.sampled_from(TIERS), st.sampled_from(TIERS), st.sampled_from(TIERS))
def test_tiers_have_one_order_and_the_last_is_weaker_than_none(one, other, third):
    assert is_weaker(one, other) <= (not is_weaker(other, one))
    assert not is_weaker(one, one)
    assert not is_weaker(one, "")
    if is_weaker(one, other) and is_weaker(other, third):
        assert is_weaker(one, third)
    assert not is_weaker("microvm", one)


@given(policies)
def test_any_structure_holds_or_is_rejected(raw):
    _holds(json.dumps(raw), "json")


@given(st.text(max_size=200), st.sampled_from(["json", "toml"]))
def test_any_text_holds_or_is_rejected(text, form):
    _holds(text, form)
    _holds(f"name = 'p'\nrules = [{text}]", form)
