"""The proof of an environment key, at a real local brain: nothing is taken from its queue."""

import pytest

from brain_process import BrainProcess
from handiwork.brains.environment_check import _count, _text, prove
from handiwork.model.errors import (
    BrainUnavailableError,
    HandiworkError,
    NotFoundError,
    UnauthorizedError,
)


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory):
    with BrainProcess.start(tmp_path_factory.mktemp("brain") / "brain.db") as brain:
        yield brain


async def test_a_key_that_holds(brain: BrainProcess) -> None:
    found = await prove(
        environment_id=brain.environment_id,
        environment_key=brain.environment_key,
        base_url=brain.base_url,
    )
    assert (found.depth, found.pending, found.oldest_queued_at) == (0, 0, None)


async def test_keys_that_do_not(brain: BrainProcess) -> None:
    with pytest.raises(UnauthorizedError) as caught:
        await prove(
            environment_id=brain.environment_id,
            environment_key="sk-ant-oat01-wrong",
            base_url=brain.base_url,
        )
    assert "oat01-wrong" not in str(caught.value)
    # An API key may read the queue's counts; it may not claim.
    with pytest.raises((UnauthorizedError, NotFoundError)):
        await prove(
            environment_id=brain.environment_id,
            environment_key=brain.api_key,
            base_url=brain.base_url,
        )
    with pytest.raises(HandiworkError):
        await prove(
            environment_id="env_01nonenonenonenone",
            environment_key=brain.environment_key,
            base_url=brain.base_url,
        )
    with pytest.raises(BrainUnavailableError):
        await prove(environment_id="e", environment_key="k", base_url="http://127.0.0.1:9")


def test_what_a_brain_counts_is_read_with_care() -> None:
    assert [_count(value) for value in (3, 0, -1, "3", None, 1.5)] == [3, 0, None, None, None, None]
    assert (_text("x" * 100), _text(5)) == ("x" * 64, None)
