"""A real sandbox of the namespace tier, and the tools of a session in it."""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handiwork.config import ToolSettings
from handiwork.model.sandbox import Limits, SandboxSpec
from handiwork.model.session import BrainSession
from handiwork.model.tool import TextBlock, ToolCall, ToolResult
from handiwork.sandboxes.guest_client import GuestSandbox
from handiwork.sandboxes.namespace import NamespaceDriver
from handiwork.sandboxes.protocol import Sandbox
from handiwork.tools.registry import Registry
from handiwork.tools.toolset import SessionToolset, stock

SESSION = BrainSession(
    id="sesn_1", agent_id="agent_1", agent_name="a", toolset=True, custom_tools=("background",)
)


class ToolWorld:
    """The tools of one session. `sandbox` is what they work in and may be replaced."""

    def __init__(
        self,
        sandbox: Sandbox,
        settings: ToolSettings,
        registry: Registry | None = None,
        *,
        session: BrainSession = SESSION,
    ) -> None:
        self.sandbox = sandbox
        self.toolset = SessionToolset(session, registry or stock(), self._use, settings=settings)
        self._calls = 0

    async def _use(self) -> Sandbox:
        return self.sandbox

    async def call(
        self, name: str, given: dict[str, object], *, custom: bool = False, thread_id: str = ""
    ) -> ToolResult:
        self._calls += 1
        one = ToolCall(
            id=f"sevt_{self._calls:08}",
            session_id="sesn_1",
            name=name,
            input=given,
            custom=custom,
            thread_id=thread_id,
        )
        return await self.toolset.run(one)

    async def told(self, name: str, **given: object) -> tuple[str, bool]:
        """Return the text of a result, and whether it is an error."""
        result = await self.call(name, given)
        return text(result), result.is_error

    async def custom(self, name: str, **given: object) -> tuple[str, bool]:
        """The same of a custom tool."""
        result = await self.call(name, given, custom=True)
        return text(result), result.is_error

    async def bash(self, command: str, **given: object) -> tuple[str, bool]:
        return await self.told("bash", command=command, **given)


def text(result: ToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, TextBlock)
    return block.text


@contextlib.asynccontextmanager
async def sandbox_of(
    data_dir: Path, name: str = "sbx_tools000", *, memory_mib: int = 0
) -> AsyncIterator[GuestSandbox]:
    """Make one that ends; with a limit on memory of its own, or the test is skipped."""
    driver = NamespaceDriver(data_dir, clock=lambda: datetime.now(UTC))
    limits = Limits(memory_mib=memory_mib, tmp_mib=16) if memory_mib else Limits()
    if memory_mib and not driver.protections()["memory_limit"]:
        pytest.skip("this host gives no memory control group")
    sandbox = await driver.create(SandboxSpec(id=name, limits=limits))
    try:
        yield sandbox
    finally:
        await driver.destroy(name)
