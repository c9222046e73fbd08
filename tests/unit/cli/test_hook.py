"""`handiwork hook list`: what there is, and what is wrong."""

import json


def test_they_are_listed(api, handiwork) -> None:
    done = handiwork("hook", "list")
    assert done.code == 0
    assert "works" in done.out
    assert "invalid syntax" in done.out
    works, broken = json.loads(handiwork("hook", "list", "--json").out)
    assert (works["name"], works["stages"]) == ("works", ["request"])
    assert (broken["name"], broken["error"]) == ("broken", "line 1: invalid syntax")
