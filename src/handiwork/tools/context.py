"""What a tool is given besides its input."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from handiwork.model.errors import ToolFailedError
from handiwork.model.ids import DEFAULT_TENANT
from handiwork.model.tool import Block
from handiwork.sandboxes.protocol import Sandbox
from handiwork.tools.jobs import Jobs
from handiwork.tools.shell_process import Shell
from handiwork.tools.spool import Spool

if TYPE_CHECKING:
    from handiwork.tools.registry import Tool

CallTool = Callable[[str, Mapping[str, Any]], Awaitable[tuple[Block, ...]]]


async def _no_tool(name: str, given: Mapping[str, Any]) -> tuple[Block, ...]:
    raise ToolFailedError(f"there is no tool {name!r} here")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """Who calls, and the sandbox the call works in. Made anew for every call.

    `shell` is the persistent shell of the calling thread of the session; `timeout_seconds` is the
    limit for a call that asks for none, `longest_seconds` for one that asks; `spool` keeps long
    outputs, `jobs` are the session's in the background. `tools` are what code may call, by `call_tool`.
    """

    session_id: str
    agent_id: str
    tenant: str = DEFAULT_TENANT
    thread_id: str = ""
    tool_use_id: str
    sandbox: Sandbox
    shell: Shell
    spool: Spool
    jobs: Jobs
    tools: tuple["Tool", ...] = ()
    call_tool: CallTool = _no_tool
    timeout_seconds: float = 120.0
    longest_seconds: float = 3600.0
