"""`handiwork agent …`: tier and policy of an agent."""

import json


def test_set_and_list(api, handiwork) -> None:
    done = handiwork("agent", "set", "agent_01aaaaaaaa", "--tier", "namespace")
    assert (done.code, done.out) == (0, "")
    (row,) = json.loads(handiwork("agent", "list", "--json").out)
    assert (row["agent_id"], row["tier"], row["policy"]) == ("agent_01aaaaaaaa", "namespace", "")
    assert "agent_01aaaaaaaa  env_1           namespace" in handiwork("agent", "list").out


def test_a_tier_and_a_policy_that_are_not_there(api, handiwork) -> None:
    done = handiwork("agent", "set", "agent_01aaaaaaaa", "--tier", "docker")
    assert (done.code, "docker" in done.err) == (2, True)
    done = handiwork("agent", "set", "agent_01aaaaaaaa", "--policy", "none")
    assert (done.code, "none" in done.err) == (2, True)
    assert handiwork("agent", "list", "--json").out == "[]\n"


def test_variables(api, handiwork, typed) -> None:
    typed(b"sk-0123456789")
    assert handiwork("secret", "set", "github", "--host", "api.github.com").code == 0
    given = ["--variable", "A=github", "--variable", "B=github"]
    assert handiwork("agent", "set", "agent_01aaaaaaaa", *given).code == 0
    (row,) = json.loads(handiwork("agent", "list", "--json").out)
    assert row["variables"] == {"A": "github", "B": "github"}
    assert handiwork("agent", "set", "agent_01aaaaaaaa").code == 0
    (row,) = json.loads(handiwork("agent", "list", "--json").out)
    assert row["variables"] == {}


def test_variables_that_are_none(api, handiwork) -> None:
    for variable, names in [("TOKEN", "NAME=SECRET"), ("A=none", "'none'"), ("PATH=x", "'PATH'")]:
        done = handiwork("agent", "set", "agent_01aaaaaaaa", "--variable", variable)
        assert (done.code, names in done.err) == (2, True)
