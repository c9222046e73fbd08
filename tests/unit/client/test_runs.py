"""Runs through the client; `tests/integration/test_runs.py` has them whole."""

import pytest

from handiwork import Handiwork
from handiwork.client.runs import _decoded
from handiwork.model.errors import ConfigError, HandiworkError, NotFoundError
from handiwork.model.run import Run
from handiwork.model.wire import RunBody


async def test_without_a_local_brain(hw: Handiwork) -> None:
    with pytest.raises(ConfigError, match="local_brain"):
        await hw.runs.start(RunBody(task="go", model="m"))
    with pytest.raises(ConfigError, match="local_brain"):
        await anext(hw.runs.stream(RunBody(task="go", model="m")))
    assert await hw.runs.list() == []
    with pytest.raises(NotFoundError):
        await hw.runs.get("run_none", wait_seconds=1)
    with pytest.raises(NotFoundError):
        await hw.runs.cancel("run_none")
    with pytest.raises(NotFoundError):
        await anext(hw.runs.follow("run_none"))


def test_an_answer_of_something_else() -> None:
    with pytest.raises(HandiworkError, match="not what this client expects"):
        _decoded(b"{}", Run)
