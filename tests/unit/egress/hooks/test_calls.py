"""What becomes of what a hook returns."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from handiwork.egress.hooks.calls import context_of, result_of
from handiwork.egress.hooks.loading import Hook
from handiwork.egress.hooks.way_out import WayOut
from handiwork.egress.hooks.wire import (
    Answered,
    Call,
    Caller,
    Denied,
    Failed,
    Passed,
    RequestForm,
    ResponseForm,
    Result,
    Shown,
)
from handiwork.hooks import Answer, Deny

CALLER = Caller(tenant="t", agent_id="a", session_id="s", sandbox_id="b", tool="", tool_use_id="")
REQUEST = RequestForm(
    method="GET", scheme="https", host="h", port=443, path="/", query="", headers=[], body=None
)


async def run(function, *, response: ResponseForm | None = None) -> Result:
    stage = "response" if response else "request"
    call = Call(
        id=7,
        hook="h",
        stage=stage,
        caller=CALLER,
        request=REQUEST,
        response=response,
        secrets={"key": "v"},
    )
    hook = Hook("h", "d", {stage: function})
    return await result_of(call, hook, context_of(call, Path("/srv"), WayOut("")))


async def test_none_goes_on_with_what_was_changed() -> None:
    async def change(ctx, request) -> None:
        request.path, request.body = "/x", ctx.secrets["key"].encode()
        request.headers.set("X-A", "b")

    passed = await run(change)
    assert isinstance(passed, Passed)
    assert (passed.request.path, passed.request.headers) == ("/x", [("x-a", "b")])
    assert (passed.id, passed.request.body) == (7, b"v")


async def test_an_answer_is_changed_replaced_or_refused() -> None:
    async def change(ctx, request, response) -> None:
        response.status = 201

    async def replace(ctx, request, response) -> Answer:
        return Answer(status=202)

    async def refuse(ctx, request, response) -> Deny:
        return Deny("x" * 9999)

    given = ResponseForm(status=200, headers=[], body=None)
    shown = await run(change, response=given)
    assert isinstance(shown, Shown)
    assert shown.response.status == 201
    assert isinstance(await run(replace, response=given), Answered)
    denied = await run(refuse, response=given)
    assert isinstance(denied, Denied)
    assert len(denied.reason) == 500


@pytest.mark.parametrize(
    "made",
    [
        3,
        "text",
        Answer(status="x"),  # type: ignore[arg-type]  # what a hook may do all the same
        Answer(body="text"),  # type: ignore[arg-type]
        Answer(headers=(("a", 1),)),  # type: ignore[arg-type]
        Answer(headers=(("a", "…"),)),
        Answer(headers=(("a", "b"),) * 201),
        Answer(body=bytes(9 << 20)),
        Answer(status=1 << 70),
        Deny(3),  # type: ignore[arg-type]
    ],
)
async def test_nonsense_fails(made: object) -> None:
    async def hook(ctx, request) -> object:
        return made

    assert isinstance(await run(hook), Failed)


async def test_an_error_is_told_by_its_kind_alone() -> None:
    async def hook(ctx, request) -> None:
        raise ValueError(ctx.secrets["key"] * 9)

    failed = await run(hook)
    assert isinstance(failed, Failed)
    assert failed.reason == "ValueError"


async def test_what_is_not_ours_to_judge_is_passed_on() -> None:
    async def eats(ctx, request) -> None:
        raise MemoryError

    async def waits(ctx, request) -> None:
        await asyncio.sleep(60)

    async def cancels_itself(ctx, request) -> None:
        raise asyncio.CancelledError

    with pytest.raises(MemoryError):
        await run(eats)
    assert isinstance(await run(cancels_itself), Failed)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(waits))
        await asyncio.sleep(0)
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        task.result()
    assert task.cancelled()


async def test_a_stage_that_is_not_there_fails() -> None:
    call = Call(id=1, hook="h", stage="response", caller=CALLER, request=REQUEST)
    failed = await result_of(call, Hook("h", "d", {}), context_of(call, Path("/"), WayOut("")))
    assert isinstance(failed, Failed)
