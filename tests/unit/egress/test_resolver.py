"""The resolver: hosts first, one question at a time, bounded, kept for seconds."""

import asyncio
import threading

import pytest

from handiwork.egress import resolver
from handiwork.egress.resolver import ResolveError, Resolver


class System:
    """Stands in for the host's resolver; waits until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.let_go = threading.Event()
        self.let_go.set()
        monkeypatch.setattr(resolver, "_ask_system", self._ask)

    def _ask(self, name: str) -> tuple[str, ...]:
        self.asked.append(name)
        self.let_go.wait(5)
        if name == "nowhere.example.org":
            raise ResolveError("no such name")
        return ("93.184.216.34",)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch):
    made = System(monkeypatch)
    yield made
    made.let_go.set()


async def test_hosts_answer_before_the_system(system: System):
    names = Resolver({"a.example.org": ("10.0.0.1",)}, seconds=5)
    assert await names.addresses("a.example.org") == ("10.0.0.1",)
    assert system.asked == []
    names.close()


async def test_one_question_is_asked_once_and_kept(system: System):
    names = Resolver({}, seconds=5)
    system.let_go.clear()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(names.addresses("b.example.org")) for _ in range(20)]
        await asyncio.sleep(0.05)
        system.let_go.set()
    assert {task.result() for task in tasks} == {("93.184.216.34",)}
    await names.addresses("b.example.org")
    assert system.asked == ["b.example.org"]
    names.close()


async def test_a_fault_is_told_and_not_kept(system: System):
    names = Resolver({}, seconds=5)
    for _ in range(2):
        with pytest.raises(ResolveError):
            await names.addresses("nowhere.example.org")
    assert len(system.asked) == 2
    names.close()


async def test_time_is_bounded(system: System):
    system.let_go.clear()
    names = Resolver({}, seconds=0.05)
    with pytest.raises(ResolveError, match="in time"):
        await names.addresses("slow.example.org")
    system.let_go.set()
    names.close()


async def test_waiting_questions_are_bounded(system: System, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resolver, "MAX_WAITING", 1)
    system.let_go.clear()
    names = Resolver({}, seconds=0.2)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(names.addresses("c.example.org"))
        await asyncio.sleep(0.01)
        with pytest.raises(ResolveError, match="too many"):
            await names.addresses("d.example.org")
        system.let_go.set()
    assert first.result() == ("93.184.216.34",)
    names.close()


async def test_what_is_kept_is_bounded(system: System, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resolver, "MAX_KEPT", 2)
    names = Resolver({}, seconds=5)
    for name in ("e", "f", "g", "e"):
        await names.addresses(f"{name}.example.org")
    assert len(system.asked) == 4
    names.close()


def test_the_system_is_asked_for_literal_loopback():
    assert "127.0.0.1" in resolver._ask_system("127.0.0.1")
    with pytest.raises(ResolveError):
        resolver._ask_system("x" * 300)
