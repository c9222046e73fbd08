"""A sandbox without walls, and a context of a tool call in it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handiwork.tools.context import ToolContext
from handiwork.tools.jobs import Jobs
from handiwork.tools.shell_process import Shell
from handiwork.tools.spool import Spool
from host_sandbox import HostSandbox


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[HostSandbox]:
    sandbox = HostSandbox("sbx_test", tmp_path)
    yield sandbox
    await sandbox.die("")


@pytest.fixture
def context(box: HostSandbox) -> ToolContext:
    return ToolContext(
        session_id="sesn_1",
        agent_id="agent_1",
        tool_use_id="sevt_1",
        sandbox=box,
        shell=Shell(box),
        spool=(spool := Spool(box)),
        jobs=Jobs(spool, 4),
    )
