"""What the brain of a session is told of its sandbox: with the next result of a tool.

There is no other way to say something to a brain unasked. A notice is kept until the brain has
taken the result that it went with; over a crash in between it may be told twice, never not at all.
"""

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from handiwork.model.ids import new_id
from handiwork.model.snapshot import Notice
from handiwork.model.tool import TextBlock, ToolCall, ToolResult
from handiwork.store.protocol import Store
from handiwork.tools.toolset import Toolset

MOST_TOLD = 8
"""At once; what is older than these is forgotten with them."""


async def notify(store: Store, session_id: str, text: str, clock: Callable[[], datetime]) -> None:
    """Have a session's brain told; nothing to do for a sandbox without a session."""
    if session_id:
        notice = Notice(
            id=new_id("ntc", secrets.token_bytes(15)), session_id=session_id, text=text, at=clock()
        )
        await store.notices.add(notice)


class SessionNotices:
    """The notices of one session that is served."""

    def __init__(self, store: Store, session_id: str) -> None:
        self._store = store
        self._session_id = session_id
        self._told: dict[str, Sequence[str]] = {}

    async def add_to(self, result: ToolResult) -> ToolResult:
        """Return the result with what is to be told before it."""
        waiting = await self._store.notices.list(self._session_id)
        if not waiting:
            return result
        self._told[result.tool_use_id] = [one.id for one in waiting]
        text = "\n".join(
            f"[handiwork, {one.at:%Y-%m-%d %H:%M:%S}Z: {one.text}]" for one in waiting[-MOST_TOLD:]
        )
        content = (TextBlock(text=text), *result.content)
        return msgspec.structs.replace(result, content=content)

    async def settled(self, tool_use_id: str) -> None:
        """Forget what went with a result that the brain has."""
        told = self._told.pop(tool_use_id, None)
        if told:
            await self._store.notices.remove(told)

    def went_with(self, tool_use_id: str) -> bool:
        """Say whether a notice went with this call's result."""
        return tool_use_id in self._told


class NoticedToolset:
    """A session's tools, whose results carry what the brain is to be told."""

    def __init__(self, toolset: Toolset, notices: SessionNotices) -> None:
        self._toolset = toolset
        self._notices = notices

    def serves(self, call: ToolCall) -> bool:
        """Say whether the call is ours."""
        return self._toolset.serves(call)

    def lane(self, call: ToolCall) -> str | None:
        """Name what the call must wait its turn for."""
        return self._toolset.lane(call)

    async def run(self, call: ToolCall) -> ToolResult:
        """Run it to its result."""
        return await self._notices.add_to(await self._toolset.run(call))
