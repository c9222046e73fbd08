"""What a tier may lack is named; whatever else it lacks fails the run."""

import pytest

from handiwork.model.errors import UnsupportedError
from handiwork.sandboxes import selfcheck
from handiwork.sandboxes.selfcheck.lacking import MAY_LACK, may_lack
from handiwork.testing.sandbox import FakeDriver

LIVING = "processes live on through a sleep"
FORKS = ("forks have the files and are apart", "a fork outlives what it is of")


class CannotFork(FakeDriver):
    def can_fork(self, sandbox_id):
        return False

    async def fork(self, source, target):
        raise UnsupportedError("no disk of its own")


class OfAnotherTier(CannotFork):
    tier = "isolate"


class HasNoIds(FakeDriver):
    async def create(self, spec):
        raise UnsupportedError("no id range is free")


async def made_by(driver):
    return [made async for made in selfcheck.selfcheck(driver, only=FORKS)]


def test_names_are_those_of_checks() -> None:
    assert set(MAY_LACK) <= set(selfcheck.names())


@pytest.mark.parametrize(
    ("tier", "root", "lacks"),
    [
        ("namespace", True, {LIVING}),
        ("gvisor", True, {LIVING}),
        ("namespace", False, {LIVING, *FORKS, "another user is another user"}),
        ("microvm", True, set()),
        ("microvm", False, set()),
        ("isolate", True, set()),
    ],
)
def test_each_tier_may_lack_this_and_no_more(tier: str, root: bool, lacks: set[str]) -> None:
    assert {name for name in selfcheck.names() if may_lack(tier, name, root=root)} == lacks


async def test_what_may_be_lacking_is_told_and_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfcheck, "is_root", lambda: False)
    told = [(made.ok, made.lacks, made.detail) for made in await made_by(CannotFork())]
    assert told == [(True, "no disk of its own", "")] * 2


async def test_what_must_not_be_lacking_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfcheck, "is_root", lambda: False)
    told = [(made.ok, made.lacks, made.detail) for made in await made_by(OfAnotherTier())]
    assert told == [(False, "", "UnsupportedError: no disk of its own")] * 2


async def test_root_may_lack_no_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfcheck, "is_root", lambda: True)
    assert [made.ok for made in await made_by(CannotFork())] == [False] * 2


async def test_a_refusal_of_something_else_is_a_fault() -> None:
    told = [(made.ok, made.detail) for made in await made_by(HasNoIds())]
    assert told == [(False, "UnsupportedError: no id range is free")] * 2
