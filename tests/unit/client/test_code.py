"""Code through the client: its value, its log as it comes, its faults."""

import pytest

from api_stand_in import Served
from handiwork import Handiwork
from handiwork.model.code import CodeLimits, CodeRequest, LogLine
from handiwork.model.errors import ConfigError, SandboxUnavailableError


async def test_everything_asked_arrives_and_comes_back(served: Served, hw: Handiwork) -> None:
    box = await hw.sandboxes.create()
    limits = CodeLimits(cpu_ms=7)
    done = await box.run_code("1", "python", fresh=True, name="/a.py", limits=limits)
    assert (done.value, done.error, done.wall_seconds) == ({"gave": "1"}, None, 0.5)
    assert done.logs == (LogLine(level="log", text="1"),)
    [one] = served.sandboxes.live.values()
    assert one.codes == [
        CodeRequest(code="1", language="python", fresh=True, name="/a.py", limits=limits)
    ]


async def test_a_log_is_told_as_it_comes(hw: Handiwork) -> None:
    box = await hw.sandboxes.create()
    heard: list[LogLine] = []
    done = await box.run_code("fail", on_log=heard.append)
    assert heard == [LogLine(level="log", text="fail")]
    assert done.error is not None
    assert done.error.name == "TypeError"


@pytest.mark.parametrize("streams", [True, False])
async def test_faults_are_errors(hw: Handiwork, streams: bool) -> None:
    box = await hw.sandboxes.create()
    on_log = (lambda _: None) if streams else None
    with pytest.raises(SandboxUnavailableError, match="the cell is gone"):
        await box.run_code("gone", on_log=on_log)
    with pytest.raises(ConfigError, match=r"limits\.cpu_ms"):
        await box.run_code("1", on_log=on_log, limits=CodeLimits(cpu_ms=0))
