"""Requests that fail, are interrupted, grow too long or cost too much; and previews."""

import asyncio
import json
from collections.abc import Callable

import pytest

from handiwork.brains.local.errors import WireError
from handiwork.brains.local.loop import Loop
from handiwork.brains.local.models import (
    ModelFailedError,
    ModelResponse,
    Prices,
    Profile,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from handiwork.brains.local.retries import Retries
from handiwork.brains.local.shapes import (
    Budget,
    Money,
    TextBlock,
    UserInterrupt,
    UserMessage,
    UserToolResult,
)
from handiwork.brains.local.skill_files import Skill

IDLE = json.dumps({"turns": [{"steps": [{"say": "unused"}]}]})
PRICES = Prices(input=10_000, output=0, cache_read=0, cache_write=0)
BUSY = ModelFailedError("busy", kind="overloaded", retry=True)


def say(text: str) -> UserMessage:
    return UserMessage(content=[TextBlock(text=text)])


def spoken(text: str, **more) -> ModelResponse:
    return ModelResponse(blocks=(Text(text),), **more)


class Prepared:
    """A model that answers with what stands ready, and keeps what it was asked."""

    def __init__(self, *answers, profile: Profile | None = None) -> None:
        self.profile = profile or Profile(context_tokens=100_000, max_output_tokens=1_000)
        self.answers = list(answers)
        self.asked = []

    def check(self, system: str) -> None:
        pass

    async def close(self) -> None:
        pass

    async def respond(self, request, tell) -> ModelResponse:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Callable):
            answer = await answer(tell)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
async def tasks():
    async with asyncio.TaskGroup() as group:
        yield group


@pytest.fixture
async def world(services, make_session, settle, tasks):
    """Return a maker: a session whose agent asks the given model, its loop and its events."""

    class World:
        async def start(self, model, **retries):
            self.model = model
            self.session = await make_session(IDLE)
            self.follow = services.journal.subscribe(self.session, previews=True)
            given = {"first_seconds": 0.001, "longest_seconds": 0.01, **retries}
            self.loop = Loop(
                services.journal, {"scripted": model}, services.new_id, tasks, Retries(**given)
            )
            return self

        async def send(self, *events):
            told = await self.loop.send(self.session, list(events))
            await settle(lambda: not self.session.asking)
            return told

        async def events(self) -> list[dict]:
            self.follow.close()
            text = b"".join([chunk async for chunk in self.follow.chunks(1)]).decode()
            data = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
            return [json.loads(each) for each in data if each != "{}"]

        async def kinds(self) -> list[str]:
            return [each["type"] for each in await self.events()]

    return World()


async def test_a_failure_that_passes_is_told_and_asked_again(world):
    await world.start(Prepared(BUSY, BUSY, spoken("at last")))
    await world.send(say("go"))
    events = await world.events()
    kinds = [each["type"] for each in events]
    assert kinds.count("session.status_rescheduled") == 2
    assert kinds.count("agent.message") == 1
    errors = [each["error"] for each in events if each["type"] == "session.error"]
    assert [each["retry_status"]["type"] for each in errors] == ["retrying", "retrying"]
    assert errors[0]["type"] == "model_overloaded_error"
    assert kinds[-1] == "session.status_idle"
    assert events[-1]["stop_reason"] == {"type": "end_turn"}
    assert world.session.status == "idle"


async def test_failures_without_end_exhaust_the_retries(world):
    await world.start(Prepared(*[BUSY] * 3), most=2)
    await world.send(say("go"))
    events = await world.events()
    errors = [each["error"] for each in events if each["type"] == "session.error"]
    assert [e["retry_status"]["type"] for e in errors] == ["retrying", "retrying", "exhausted"]
    assert events[-1]["stop_reason"] == {"type": "retries_exhausted"}


async def test_a_failure_for_good_is_not_asked_again(world):
    model = Prepared(ModelFailedError("no", kind="request_failed"), spoken("now"))
    await world.start(model)
    await world.send(say("go"))
    assert not world.session.turn.open
    await world.send(say("again"))
    assert (await world.kinds()).count("agent.message") == 1


async def test_an_interrupt_ends_the_wait_for_the_next_try(world, settle):
    await world.start(Prepared(BUSY, spoken("never")), first_seconds=60.0, longest_seconds=60.0)
    await world.loop.send(world.session, [say("go")])
    await settle(lambda: world.session.turn.rescheduled)
    assert world.session.status == "rescheduling"
    await world.loop.send(world.session, [UserInterrupt()])
    await settle(lambda: not world.session.asking)
    assert world.session.status == "idle"
    assert "agent.message" not in await world.kinds()


async def test_the_end_of_the_process_ends_the_wait_and_a_restart_asks_again(
    world, settle, services, tasks
):
    await world.start(Prepared(BUSY), first_seconds=60.0, longest_seconds=60.0)
    await world.loop.send(world.session, [say("go")])
    await settle(lambda: world.session.turn.rescheduled)
    world.loop.close()
    await settle(lambda: not world.session.asking)
    again = Prepared(spoken("here"))
    Loop(services.journal, {"scripted": again}, services.new_id, tasks).advance(world.session)
    await settle(lambda: not world.session.asking)
    assert (await world.kinds()).count("agent.message") == 1


async def test_a_preview_sums_up_to_the_message_and_a_cut_one_is_told_once(world):
    async def cut(tell):
        tell(0, "ha")
        await asyncio.sleep(0.02)
        tell(0, "lf")
        return BUSY

    async def whole(tell):
        for piece in ("who", "le", "!"):
            tell(0, piece)
            await asyncio.sleep(0.01)
        return spoken("whole!")

    await world.start(Prepared(cut, whole))
    await world.send(say("go"))
    events = await world.events()
    [message] = [each for each in events if each["type"] == "agent.message"]
    starts = [each["event"]["id"] for each in events if each["type"] == "event_start"]
    assert len(starts) == 2
    assert starts[1] == message["id"] != starts[0]
    deltas = [each for each in events if each["type"] == "event_delta"]
    shown = [d["delta"]["content"]["text"] for d in deltas if d["event_id"] == message["id"]]
    assert "".join(shown) == message["content"][0]["text"] == "whole!"
    kinds = [each["type"] for each in events]
    assert kinds.index("event_start") > kinds.index("span.model_request_start")


async def test_the_conversation_comes_of_the_events(world):
    called = ModelResponse(blocks=(Text("I look"), ToolCall("bash", {"command": "ls"})))
    model = Prepared(called, spoken("done"), spoken("more"))
    await world.start(model)
    await world.send(say("go"))
    call_id = world.session.turn.pending[0].id
    await world.send(UserToolResult(tool_use_id=call_id, content=[TextBlock(text="a.txt")]))
    await world.send(say("and?"))
    last = model.asked[-1].history
    assert [message.role for message in last] == ["user", "assistant", "user", "assistant", "user"]
    assert last[1].blocks == (Text("I look"), ToolCall("bash", {"command": "ls"}, call_id))
    assert isinstance(last[2].blocks[0], ToolResult)
    assert last[2].blocks[0].content == (Text("a.txt"),)
    assert last[4].blocks == (Text("and?"),)
    assert [offer.name for offer in model.asked[0].tools] == [
        "bash",
        "read",
        "write",
        "edit",
        "glob",
        "grep",
    ]


async def test_a_full_conversation_is_summed_up_and_goes_on_from_there(world, services):
    small = Profile(context_tokens=4_000, max_output_tokens=1_000)
    long = "word " * 600
    model = Prepared(
        spoken("one"), spoken("two"), spoken("the summary"), spoken("three"), profile=small
    )
    await world.start(model)
    await world.send(say("the task"))
    await world.send(say(long))
    await world.send(say(long))
    kinds = await world.kinds()
    assert kinds.count("agent.thread_context_compacted") == 1
    assert kinds.count("agent.message") == 3
    summing, after = model.asked[2], model.asked[3]
    assert "the task" in summing.history[0].blocks[0].text
    assert summing.tools == ()
    assert "the summary" in after.history[0].blocks[0].text
    assert "the task" not in str(after.history)
    # What another process reads from the disk is the same conversation.
    events, marker = await services.journal.conversation(world.session)
    assert "the summary" in marker[1]
    assert "the task" not in str(events)


async def test_nothing_is_forgotten_because_a_key_is_refused(world, services):
    small = Profile(context_tokens=2_000, max_output_tokens=500)
    no = ModelFailedError("refused the key", kind="request_failed")
    model = Prepared(spoken("one"), no, no, spoken("sum"), spoken("two"), profile=small)
    await world.start(model)
    await world.send(say("the task"))
    await world.send(say("word " * 900))
    _, marker = await services.journal.conversation(world.session)
    assert (marker, world.session.turn.open) == (None, False)
    await world.send(say("and now?"))
    assert "the task" in str(model.asked[3].history)
    events, (_, summary) = await services.journal.conversation(world.session)
    assert "sum" in summary
    assert "two" in str(events)


async def test_a_summary_that_is_too_long_itself_is_done_without(world):
    small = Profile(context_tokens=2_000, max_output_tokens=500)
    no = ModelFailedError("no", kind="context")
    model = Prepared(spoken("one"), no, spoken("two"), profile=small)
    await world.start(model)
    await world.send(say("the task"))
    await world.send(say("word " * 900))
    assert (await world.kinds()).count("agent.message") == 2
    assert "was dropped" in model.asked[-1].history[0].blocks[0].text


async def test_a_model_that_finds_it_too_long_gets_less_and_less_and_then_the_turn_ends(world):
    model = Prepared(*[ModelFailedError("too long", kind="context")] * 10)
    await world.start(model)
    await world.send(say("word " * 50_000))
    events = await world.events()
    [error] = [each["error"] for each in events if each["type"] == "session.error"]
    assert error["type"] == "compaction_limit_reached_error"
    lengths = [len(str(asked.history)) for asked in model.asked]
    assert len(lengths) == 4
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < lengths[0]


async def test_a_budget_stops_the_turn_until_it_is_raised(world, services, settle):
    profile = Profile(context_tokens=100_000, max_output_tokens=1_000, prices=PRICES)
    call = ModelResponse(blocks=(ToolCall("bash", {}),), usage=Usage(input_tokens=10))
    model = Prepared(call, spoken("done"), profile=profile)
    await world.start(model)
    session = world.session
    session.body.budget_cents = 10
    await world.send(say("go"))
    result = UserToolResult(tool_use_id=session.turn.pending[0].id)
    await world.send(result)
    assert session.turn.paused
    assert session.id not in services.work.open_turns
    with pytest.raises(WireError, match="reached its budget"):
        await world.loop.send(session, [say("more")])
    with pytest.raises(WireError) as low:
        world.loop.budget_after(session, budget(10))
    assert low.value.details == {"reason": "budget_not_raised"}
    session.body.budget_cents = world.loop.budget_after(session, budget(20))
    await world.loop.reconsider(session)
    await settle(lambda: not session.asking)
    events = await world.events()
    reasons = [e["stop_reason"]["type"] for e in events if e["type"] == "session.status_idle"]
    assert reasons == ["requires_action", "budget_reached", "end_turn"]
    usage = next(each for each in events if each["type"] == "session.usage")
    assert usage["usage"]["list_cost"] == {"amount": "10", "currency": "USD"}
    assert usage["budget"]["max_list_cost"]["amount"] == "20"


async def test_a_budget_needs_prices_and_cannot_be_added(world):
    await world.start(Prepared())
    with pytest.raises(WireError) as no:
        world.loop.budget_of(world.session.body.agent, budget(5))
    assert no.value.details == {"reason": "model_not_budgetable"}
    with pytest.raises(WireError) as late:
        world.loop.budget_after(world.session, budget(5))
    assert late.value.details == {"reason": "budget_create_only"}


async def test_a_model_that_was_withdrawn_ends_the_turn(world):
    await world.start(Prepared())
    world.loop._asking._models.clear()
    await world.send(say("go"))
    [error] = [e["error"] for e in await world.events() if e["type"] == "session.error"]
    assert "not configured" in error["message"]


def budget(cents: int) -> Budget:
    return Budget(type="limit", max_list_cost=Money(amount=str(cents), currency="USD"))


async def test_a_model_is_told_of_skills_and_memory_stores(world, services):
    kept = await services.skills.create(Skill("pdf", "Fills in forms", b"zip"), None)
    await services.skills.add_version(kept["id"], Skill("pdf", "Fills in more forms", b"zip"))
    gone = await services.skills.create(Skill("gone", "Nothing", b"zip"), None)
    await services.skills.delete(gone["id"])
    await world.start(Prepared(spoken("done")))
    body = world.session.body
    body.agent["skills"] = [
        {"type": "custom", "skill_id": each["id"], "version": "latest"} for each in (kept, gone)
    ]
    body.resources = [
        {
            "name": "Notes",
            "description": "Of last week",
            "instructions": "Read them",
            "access": "read_only",
            "mount_path": "/mnt/memory/notes",
        }
    ]
    await world.send(say("go"))
    [request] = world.model.asked
    assert request.system.startswith(IDLE)
    assert "- /workspace/skills/pdf: Fills in more forms\n" in request.system
    assert "/mnt/memory/notes (Notes; read only): Of last week" in request.system
    assert "gone" not in request.system
