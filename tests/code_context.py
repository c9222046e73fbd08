"""A tool's context in a fake sandbox that runs code."""

from typing import Any

from handiwork.testing.sandbox import FakeSandbox
from handiwork.tools.context import ToolContext
from handiwork.tools.jobs import Jobs
from handiwork.tools.shell_process import Shell
from handiwork.tools.spool import Spool


def context_in(box: FakeSandbox, **given: Any) -> ToolContext:
    spool = Spool(box)
    return ToolContext(
        session_id="sesn_1",
        agent_id="agent_1",
        tool_use_id="sevt_1",
        sandbox=box,
        shell=Shell(box),
        spool=spool,
        jobs=Jobs(spool, 4),
        **given,
    )
