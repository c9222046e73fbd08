"""The health of the host is measured by what would tell of harm."""

import dataclasses

from attacks import vitals


def test_what_changed_is_named():
    before = vitals.taken()
    assert vitals.harms(before, vitals.taken()) == []
    for name in ("hostname", "domain", "swaps", "first_process"):
        assert vitals.harms(before, dataclasses.replace(before, **{name: "other"})) == [name]
    changed = dataclasses.replace(before, settings=(*before.settings[:-1], "other"), devices=())
    assert vitals.harms(before, changed) == [
        "settings",
        *(f"device {one}" for one in before.devices),
    ]
    assert before.settings[0], "the first setting is on every kernel"


def test_what_is_short_or_cannot_be_done_any_more_is_named(monkeypatch):
    assert vitals.shortages() == []
    monkeypatch.setattr(vitals, "ROOM", 1.0)
    monkeypatch.setitem(vitals._ABILITIES, "watching files", lambda: False)
    named = [one.split(":")[0] for one in vitals.shortages()]
    assert named == ["memory", "open files", "process ids", "watching files"]


def test_the_clock_stands_still_between_looks():
    assert abs(vitals.clock() - vitals.clock()) < vitals.CLOCK_SLACK_SECONDS
