"""Bodies of sessions as tasks: room, hand-over, stop, drain."""

import asyncio

import pytest

from handiwork.fleet.local import LocalFleet
from handiwork.model.errors import ConflictError


class Body:
    """Runs until it is cancelled or let go; tells what happened to it."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.running = asyncio.Event()
        self.end = ""

    async def __call__(self) -> None:
        self.running.set()
        try:
            await self.go.wait()
            self.end = "done"
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.end = "cancelled"
            raise


async def test_room_is_bounded_and_comes_back() -> None:
    async with LocalFleet(max_sessions=1) as fleet:
        body = Body()
        await fleet.submit("a", body)
        assert fleet.free == 0
        with pytest.raises(ConflictError, match="serves 1 sessions already"):
            await fleet.submit("b", Body())
        waiting = asyncio.ensure_future(fleet.reserve())
        await body.running.wait()
        assert not waiting.done()
        body.go.set()
        await waiting
        assert fleet.free == 0
        fleet.release()
        assert fleet.free == 1


async def test_a_place_that_is_reserved_is_nobody_elses() -> None:
    async with LocalFleet(max_sessions=1) as fleet:
        await fleet.reserve()
        with pytest.raises(ConflictError):
            await fleet.submit("a", Body())
        body = Body()
        await fleet.submit("b", body, reserved=True)
        await body.running.wait()
        body.go.set()
        await fleet.emptied()
        assert fleet.free == 1


async def test_places_are_given_in_turn() -> None:
    async with LocalFleet(max_sessions=1) as fleet:
        got: list[int] = []

        async def ask(number: int) -> None:
            for _ in range(3):
                await fleet.reserve()
                got.append(number)
                await asyncio.sleep(0)
                fleet.release()

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(ask(number))
        assert got == [0, 1, 2] * 3


async def test_stop_waits_for_the_end() -> None:
    async with LocalFleet(max_sessions=2) as fleet:
        body = Body()
        await fleet.submit("a", body)
        await body.running.wait()
        assert await fleet.stop("a")
        assert body.end == "cancelled"
        assert not await fleet.stop("a")


async def test_a_second_body_waits_for_the_first() -> None:
    async with LocalFleet(max_sessions=3) as fleet:
        first, second = Body(), Body()
        await fleet.submit("a", first)
        await fleet.submit("a", second)
        await first.running.wait()
        assert not second.running.is_set()
        first.go.set()
        await second.running.wait()
        assert first.end == "done"


async def test_a_first_body_that_stays_is_cancelled() -> None:
    async with LocalFleet(max_sessions=3, handover_seconds=0.01) as fleet:
        first, second = Body(), Body()
        await fleet.submit("a", first)
        await fleet.submit("a", second)
        await second.running.wait()
        assert first.end == "cancelled"
        assert await fleet.stop("a")
        assert second.end == "cancelled"


async def test_a_fault_in_one_body_leaves_the_others() -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    async with LocalFleet(max_sessions=2) as fleet:
        body = Body()
        await fleet.submit("good", body)
        await fleet.submit("bad", broken)
        await asyncio.sleep(0.01)
        assert fleet.free == 1
        assert body.end == ""


async def test_leaving_drains() -> None:
    bodies = [Body() for _ in range(5)]
    async with LocalFleet(max_sessions=5) as fleet:
        for number, body in enumerate(bodies):
            await fleet.submit(str(number), body)
        await bodies[-1].running.wait()
    assert [body.end for body in bodies] == ["cancelled"] * 5


@pytest.mark.parametrize("how", ["stop", "drain"])
async def test_who_ends_a_hand_over_ends_the_former_body_too(how: str) -> None:
    async with LocalFleet(max_sessions=3) as fleet:
        first, second = Body(), Body()
        await fleet.submit("a", first)
        await first.running.wait()
        await fleet.submit("a", second)
        await asyncio.sleep(0)
        await (fleet.stop("a") if how == "stop" else fleet.drain())
        assert (first.end, second.running.is_set()) == ("cancelled", False)
        assert fleet.free == 3


async def test_a_body_that_steps_apart_leaves_its_place_to_others() -> None:
    async with LocalFleet(max_sessions=1) as fleet:
        back, apart = asyncio.Event(), asyncio.Event()

        async def steps_apart() -> None:
            async with fleet.apart():
                apart.set()
                await back.wait()
            await other.running.wait()

        other = Body()
        await fleet.submit("a", steps_apart)
        await apart.wait()
        await fleet.submit("b", other)
        back.set()
        await other.running.wait()
        assert fleet.free == 0
        other.go.set()
        await fleet.emptied()
        assert fleet.free == 1


async def test_a_body_that_is_stopped_apart_has_no_place_to_give_back() -> None:
    async with LocalFleet(max_sessions=1) as fleet:
        apart = asyncio.Event()

        async def stays_apart() -> None:
            async with fleet.apart():
                apart.set()
                await asyncio.Event().wait()

        await fleet.submit("a", stays_apart)
        await apart.wait()
        assert fleet.free == 1
        assert await fleet.stop("a")
        assert fleet.free == 1
        await fleet.submit("b", Body())
        assert fleet.free == 0
