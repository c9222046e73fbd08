"""The waits of a session: once each, since when, bounded."""

from datetime import UTC, datetime, timedelta

from handiwork.model.session import Waiting, WaitingKind
from handiwork.sessions.waits import MAX_REASON_CHARACTERS, MAX_WAITS, Waits

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def wait(name: str, minutes: int = 0, **more: object) -> Waiting:
    given = {"kind": WaitingKind.SKILL, "reason": "r", **more}
    return Waiting(name=name, since=NOW + timedelta(minutes=minutes), **given)


def test_told_again_it_keeps_its_since_and_takes_the_new_reason() -> None:
    waits = Waits()
    assert waits.add(wait("a"))
    assert not waits.add(wait("a", 5, reason="other"))
    assert waits.all() == (wait("a", reason="other"),)


def test_what_a_former_run_waited_for_counts_only_when_it_is_told_again() -> None:
    waits = Waits()
    waits.resume((wait("a"), wait("b")))
    assert waits.all() == ()
    assert waits.add(wait("a", 5))
    waits.remove(name="b")
    waits.add(wait("b", 6))
    assert waits.all() == (wait("a"), wait("b", 6))


def test_what_fits_is_removed() -> None:
    waits = Waits()
    all_ = [
        wait("a", tool_use_id="1"),
        wait("a", tool_use_id="2"),
        wait("b", kind=WaitingKind.BRAIN, tool_use_id="1"),
    ]
    for one in all_:
        waits.add(one)
    assert waits.remove(WaitingKind.SKILL, tool_use_id="1") == all_[:1]
    assert waits.remove(name="c") == []
    assert waits.remove() == all_[1:]
    assert waits.all() == ()


def test_they_are_bounded() -> None:
    waits = Waits()
    for number in range(MAX_WAITS + 1):
        assert waits.add(wait(str(number), reason="x" * 9999)) == (number < MAX_WAITS)
    assert len(waits.all()) == MAX_WAITS
    assert {len(one.reason) for one in waits.all()} == {MAX_REASON_CHARACTERS}
