"""What a tool is given besides its input."""

from dataclasses import dataclass

from handiwork.model.ids import DEFAULT_TENANT
from handiwork.sandboxes.protocol import Sandbox
from handiwork.tools.jobs import Jobs
from handiwork.tools.shell_process import Shell
from handiwork.tools.spool import Spool


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """Who calls, and the sandbox the call works in. Made anew for every call.

    `shell` is the persistent shell of the calling thread of the session; `timeout_seconds` is the
    limit for a call that asks for none, `longest_seconds` for one that asks; `spool` keeps long
    outputs, `jobs` are the session's in the background.
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
    timeout_seconds: float = 120.0
    longest_seconds: float = 3600.0
