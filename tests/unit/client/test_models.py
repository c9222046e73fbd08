"""Models of the local brain, through the client."""

import pytest

from handiwork import Handiwork
from handiwork.model.errors import NotFoundError
from handiwork.model.wire import ModelBody


async def test_models(hw: Handiwork) -> None:
    body = ModelBody(kind="openai", base_url="http://127.0.0.1:1/v1", key="sk-0123456789")
    assert "sk-0123456789" not in repr(body)
    written = await hw.models.put("qwen3:8b", body)
    assert await hw.models.get("qwen3:8b") == written
    assert await hw.models.list() == [written]
    await hw.models.delete("qwen3:8b")
    with pytest.raises(NotFoundError):
        await hw.models.get("qwen3:8b")
