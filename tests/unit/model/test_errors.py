"""The tree of errors, and the one error within a task group's."""

import asyncio

import pytest

from handiwork.model import errors


def test_every_error_is_of_the_tree_and_keeps_its_words() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    assert len(kinds) > 10
    for kind in kinds:
        extra = {"errno": 2} if kind is errors.GuestError else {}
        assert issubclass(kind, errors.HandiworkError)
        assert str(kind("what, where, what to do", **extra)) == "what, where, what to do"


def test_a_refusal_carries_its_rule() -> None:
    assert errors.PolicyDeniedError("no").rule_id == "default"
    assert errors.PolicyDeniedError("no", rule_id="agent:web/docs").rule_id == "agent:web/docs"


async def test_the_sole_error_of_nested_groups() -> None:
    async def failing() -> None:
        async with asyncio.TaskGroup():
            raise errors.ConfigError("inner")

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(failing())
    sole = errors.sole(caught.value)
    assert (type(sole), str(sole)) == (errors.ConfigError, "inner")


def test_several_errors_stay_a_group() -> None:
    two = ExceptionGroup("two", [errors.ConfigError("a"), errors.ConflictError("b")])
    assert errors.sole(ExceptionGroup("outer", [two])) is two
