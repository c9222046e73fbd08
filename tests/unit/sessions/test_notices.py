"""What a brain is told goes with a result, and is kept until the brain has that."""

from handiwork.model.tool import ToolCall, ToolResult, text_result
from handiwork.sessions.notices import MOST_TOLD, NoticedToolset, SessionNotices, notify
from handiwork.testing.store import MemoryStore
from session_world import call, clock


class Tools:
    def serves(self, call: ToolCall) -> bool:
        return call.name == "bash"

    def lane(self, call: ToolCall) -> str | None:
        return call.thread_id or None

    async def run(self, call: ToolCall) -> ToolResult:
        return text_result(call, "done")


async def test_told_before_the_result_until_that_is_taken() -> None:
    store = MemoryStore()
    await notify(store, "sesn_1", "it was put back", clock)
    await notify(store, "", "nobody to tell", clock)
    notices = SessionNotices(store, "sesn_1")
    tools = NoticedToolset(Tools(), notices)
    assert tools.serves(call("c1"))
    assert tools.lane(call("c1", thread_id="t")) == "t"
    told, plain = await tools.run(call("c1")), text_result(call("c1"), "done")
    assert "it was put back]" in told.content[0].text
    assert told.content[1:] == plain.content
    assert notices.went_with("c1")
    again = SessionNotices(store, "sesn_1")  # as after a crash
    assert len((await again.add_to(plain)).content) == 2
    await notices.settled("c1")
    await notices.settled("c1")
    assert not notices.went_with("c1")
    assert await tools.run(call("c1")) == plain


async def test_of_many_the_last_are_told() -> None:
    store = MemoryStore()
    for number in range(MOST_TOLD + 3):
        await notify(store, "sesn_1", f"n{number}.", clock)
    notices = SessionNotices(store, "sesn_1")
    told = await notices.add_to(text_result(call("c1"), "done"))
    lines = told.content[0].text.split("\n")
    assert len(lines) == MOST_TOLD
    assert "n10." in lines[-1]
    await notices.settled("c1")
    assert await store.notices.list("sesn_1") == []
