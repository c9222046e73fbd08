"""`handiwork agent …`: tier and policy of an agent."""

import json


def test_set_and_list(api, handiwork) -> None:
    done = handiwork("agent", "set", "agent_01aaaaaaaa", "--tier", "namespace")
    assert (done.code, done.out) == (0, "")
    (row,) = json.loads(handiwork("agent", "list", "--json").out)
    assert (row["agent_id"], row["tier"], row["policy"]) == ("agent_01aaaaaaaa", "namespace", "")
    assert "agent_01aaaaaaaa  namespace" in handiwork("agent", "list").out


def test_a_tier_and_a_policy_that_are_not_there(api, handiwork) -> None:
    done = handiwork("agent", "set", "agent_01aaaaaaaa", "--tier", "docker")
    assert (done.code, "docker" in done.err) == (2, True)
    done = handiwork("agent", "set", "agent_01aaaaaaaa", "--policy", "none")
    assert (done.code, "none" in done.err) == (2, True)
    assert handiwork("agent", "list", "--json").out == "[]\n"
