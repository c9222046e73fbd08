"""Which calls are ours, and that whatever a tool does becomes a result."""

import pytest

from handiwork.config import ToolSettings
from handiwork.model.errors import ConfigError, SandboxUnavailableError, ToolFailedError
from handiwork.model.session import BrainSession
from handiwork.model.tool import TextBlock, ToolCall, ToolResult
from handiwork.sandboxes.protocol import Sandbox
from handiwork.tools.context import ToolContext
from handiwork.tools.registry import tool
from handiwork.tools.toolset import RefusingToolset, SessionToolset, check_timeouts, stock
from host_sandbox import HostSandbox

SESSION = BrainSession(
    id="sesn_1", agent_id="agent_1", agent_name="a", toolset=True, custom_tools=("ours", "theirs")
)

SETTINGS = ToolSettings(default_timeout_seconds=5)


def call(name: str, *, custom: bool = False, thread_id: str = "", **given: object) -> ToolCall:
    return ToolCall(
        id=f"sevt_{name}",
        session_id="sesn_1",
        name=name,
        input=given,
        custom=custom,
        thread_id=thread_id,
    )


def text(result: ToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, TextBlock)
    return block.text


@tool("ours", timeout_seconds=0.2)
async def ours(context: ToolContext, how: str) -> str:
    """Do as told."""
    if how == "fail":
        raise ToolFailedError("ours: no")
    if how == "break":
        raise ZeroDivisionError
    if how == "sleep":
        await context.sandbox.closed()
    return f"did {how}"


@pytest.fixture
def toolset(box: HostSandbox) -> SessionToolset:
    async def use() -> Sandbox:
        return box

    registry = stock()
    registry.add(ours)
    return SessionToolset(SESSION, registry, use, settings=SETTINGS)


def test_what_is_ours(toolset: SessionToolset) -> None:
    assert toolset.serves(call("bash"))
    assert toolset.serves(call("ours", custom=True))
    for other in (
        call("bash", custom=True),
        call("ours"),
        call("theirs", custom=True),
        call("web_search"),
    ):
        assert not toolset.serves(other)
    assert toolset.missing() == ["theirs"]


def test_order_is_kept_within_a_thread_for_what_changes_things(toolset: SessionToolset) -> None:
    assert toolset.lane(call("bash", thread_id="sthr_1")) == "sthr_1"
    assert toolset.lane(call("write")) == toolset.lane(call("edit")) == ""
    assert toolset.lane(call("read")) is toolset.lane(call("ours", custom=True)) is None


@pytest.mark.parametrize(
    ("how", "expected", "is_error"),
    [
        ("well", "did well", False),
        ("fail", "ours: no", True),
        ("break", "handiwork: the tool 'ours' failed; the log says why", True),
        (
            "sleep",
            "tool 'ours' timed out after 0.2s, its limit here; it was ended, and its effects may be partial",
            True,
        ),
    ],
)
async def test_every_end_is_a_result(
    toolset: SessionToolset, how: str, expected: str, is_error: bool
) -> None:
    result = await toolset.run(call("ours", custom=True, how=how))
    assert (text(result), result.is_error, result.custom) == (expected, is_error, True)


async def test_a_failed_sandbox_is_never_told_as_output(box: HostSandbox) -> None:
    async def use() -> Sandbox:
        raise SandboxUnavailableError("it is gone")

    toolset = SessionToolset(SESSION, stock(), use, settings=SETTINGS)
    result = await toolset.run(call("bash", command="true"))
    assert (text(result), result.is_error) == ("handiwork: the sandbox failed: it is gone", True)


async def test_threads_have_shells_of_their_own(toolset: SessionToolset) -> None:
    await toolset.run(call("bash", thread_id="a", command="X=1"))
    await toolset.run(call("bash", thread_id="b", command="X=2"))
    shown = [
        text(await toolset.run(call("bash", thread_id=thread, command="echo $X")))
        for thread in ("a", "b")
    ]
    assert shown == ["1", "2"]


async def test_another_sandbox_has_another_shell(box: HostSandbox) -> None:
    other = HostSandbox("sbx_other", box.root / "other")
    boxes = [box, other]

    async def use() -> Sandbox:
        return boxes[0]

    toolset = SessionToolset(SESSION, stock(), use, settings=SETTINGS)
    await toolset.run(call("bash", command="X=1"))
    boxes.reverse()
    assert text(await toolset.run(call("bash", command="echo [$X]"))) == "[]"
    await other.die("")


async def test_a_refused_session_answers_the_calls_that_we_serve_with_the_reason() -> None:
    registry = stock()
    registry.add(ours)
    toolset = RefusingToolset(SESSION, registry, "the policy 'x' does not exist")
    assert toolset.serves(call("bash"))
    assert toolset.serves(call("ours", custom=True))
    assert not toolset.serves(call("somebody_elses", custom=True))
    assert not toolset.serves(call("bash", custom=True))
    result = await toolset.run(call("ours", custom=True))
    assert (result.is_error, result.custom) == (True, True)
    result = await toolset.run(call("bash", command="true"))
    assert result.is_error
    assert text(result) == ("handiwork: this session is not served: the policy 'x' does not exist")


async def test_the_operator_sets_a_tools_limit(box: HostSandbox) -> None:
    async def use() -> Sandbox:
        return box

    registry = stock()
    registry.add(ours)
    limits = {"ours": 0.05, "bash": 0.1}
    settings = ToolSettings(timeout_seconds=limits, longest_timeout_seconds=0.3)
    toolset = SessionToolset(SESSION, registry, use, settings=settings)
    assert text(await toolset.run(call("ours", custom=True, how="sleep"))).startswith(
        "tool 'ours' timed out after 0.05s"
    )
    assert "timed out after 0.1s" in text(await toolset.run(call("bash", command="sleep 9")))
    assert "timed out after 0.3s" in text(
        await toolset.run(call("bash", command="sleep 9", timeout_ms=99_000))
    )


async def test_a_timeout_of_a_tools_own_is_its_failure_not_its_limit(box: HostSandbox) -> None:
    async def use() -> Sandbox:
        return box

    @tool("ours")
    async def impatient(context: ToolContext) -> str:
        """Time out inside."""
        raise TimeoutError

    registry = stock()
    registry.add(impatient)
    toolset = SessionToolset(SESSION, registry, use, settings=SETTINGS)
    assert text(await toolset.run(call("ours", custom=True))) == (
        "handiwork: the tool 'ours' failed; the log says why"
    )


def test_a_limit_of_no_tool_is_refused() -> None:
    check_timeouts(ToolSettings(timeout_seconds={"bash": 600.0}), stock())
    with pytest.raises(
        ConfigError, match=r"tools\.timeout_seconds\.bsh: there is no such tool; use b"
    ):
        check_timeouts(ToolSettings(timeout_seconds={"bsh": 600.0}), stock())
