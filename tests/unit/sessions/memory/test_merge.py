"""What one pass does about each path, by what both sides hold and held."""

import pytest

from handiwork.model.attachment import Memory
from handiwork.sessions.memory.merge import Do, Known, delete_cap, plan


def there(**contents: str) -> dict[str, Memory]:
    return {p: Memory(id=f"mem_{p}", path=f"/{p}", sha256=c) for p, c in contents.items()}


def done(known: Known, here: dict, brain: dict, **more) -> list[tuple[Do, str]]:
    given = {"now": 100.0, **more}
    return [(one.do, one.path) for one in plan(known, here, brain, **given).actions]


KEEP = {"keep": "k"}


@pytest.mark.parametrize(
    ("base", "here", "brain", "expected"),
    [
        ("1", "1", "1", None),
        ("1", "1", "2", Do.PULL),
        ("1", "2", "1", Do.UPDATE),
        ("1", "2", "2", None),
        ("1", "2", "3", Do.PULL),
        (None, "1", None, Do.CREATE),
        (None, None, "1", Do.PULL),
        (None, "1", "1", None),
        (None, "1", "2", Do.PULL),
        ("1", "1", None, Do.DROP),
        ("1", "2", None, Do.CREATE),
        ("1", None, None, None),
        ("1", None, "2", Do.PULL),
        ("1", None, "1", Do.DELETE),
    ],
)
@pytest.mark.parametrize("read_only", [False, True])
def test_every_case(base, here, brain, expected, read_only) -> None:
    known = Known(base={**KEEP, **({"a": base} if base else {})}, missing={"a": 0.0})
    files = {**KEEP, **({"a": here} if here else {})}
    memories = there(**KEEP, **({"a": brain} if brain else {}))
    if read_only:
        expected = {Do.UPDATE: Do.PULL, Do.DELETE: Do.PULL, Do.CREATE: None}.get(expected, expected)
    found = done(known, files, memories, read_only=read_only)
    assert found == ([(expected, "a")] if expected else [])


def test_agreement_is_noted_without_a_word() -> None:
    known = Known(base={"a": "1"}, refused={"a": "2"})
    assert done(known, {"a": "2"}, there(a="2")) == []
    assert (known.base, known.refused) == ({"a": "2"}, {})


def test_a_change_that_gives_way_is_told() -> None:
    known = Known(base={"a": "1", "b": "1"})
    assert plan(known, {"a": "2", "b": "1"}, there(a="3", b="2"), now=0.0).lost == ("a",)


def test_a_delete_waits_half_a_minute_and_starts_anew_when_the_file_comes_back() -> None:
    known = Known(base={"a": "1", **KEEP})
    brain = there(a="1", **KEEP)
    assert done(known, KEEP, brain, now=0.0) == []
    assert done(known, KEEP, brain, now=29.0) == []
    assert done(known, {"a": "1", **KEEP}, brain, now=29.5) == []
    assert done(known, KEEP, brain, now=31.0) == []
    assert done(known, KEEP, brain, now=61.0) == [(Do.DELETE, "a")]


def test_the_last_pass_does_not_wait() -> None:
    known = Known(base={"a": "1", **KEEP})
    assert done(known, KEEP, there(a="1", **KEEP), final=True) == [(Do.DELETE, "a")]


@pytest.mark.parametrize(("count", "cap"), [(0, 8), (33, 8), (100, 25), (2000, 50)])
def test_deletes_are_capped(count: int, cap: int) -> None:
    assert delete_cap(count) == cap
    names = {f"{n:04}": "1" for n in range(count)}
    known = Known(base={**names, **KEEP}, missing=dict.fromkeys(names, 0.0))
    found = plan(known, KEEP, there(**names, **KEEP), now=100.0)
    assert len(found.actions) == min(count, cap)
    assert found.held == max(0, count - cap)


def test_when_all_is_gone_nothing_is_deleted() -> None:
    known = Known(base={"a": "1", "b": "1"}, missing={"a": 0.0, "b": 0.0})
    found = plan(known, {"new": "1"}, there(a="1", b="1"), now=1000.0, final=True)
    assert found.restore
    assert not found.actions


def test_the_only_file_may_be_deleted() -> None:
    known = Known(base={"a": "1"}, missing={"a": 0.0})
    assert done(known, {}, there(a="1")) == [(Do.DELETE, "a")]


def test_what_was_refused_is_sent_again_once_it_has_changed() -> None:
    known = Known(base={"a": "1"}, refused={"a": "2", "b": "9"})
    assert done(known, {"a": "2", "b": "9"}, there(a="1")) == []
    assert done(known, {"a": "3", "b": "8"}, there(a="1")) == [(Do.UPDATE, "a"), (Do.CREATE, "b")]


def test_an_answer_that_never_came_is_found_in_the_listing() -> None:
    known = Known(base={"a": "1"}, sent={"a": "2", "b": "5"})
    found = done(known, {"a": "3", "b": "6"}, there(a="2", b="7"))
    assert found == [(Do.UPDATE, "a"), (Do.PULL, "b")]
    assert known.sent == {}


def test_a_path_that_both_sides_lost_is_forgotten() -> None:
    known = Known(base={"a": "1", **KEEP}, missing={"a": 1.0}, refused={"a": "2"})
    assert done(known, KEEP, there(**KEEP)) == []
    assert known == Known(base=KEEP)
