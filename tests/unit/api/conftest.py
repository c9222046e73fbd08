"""The API served on real sockets, and a plain HTTP client with the admin key."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from api_stand_in import Served, served_api


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with served_api(tmp_path) as served:
        yield served


@pytest.fixture
async def http(served: Served) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(
        base_url=served.url, headers=served.authorization, trust_env=False
    ) as http:
        yield http


@pytest.fixture
async def box(http: httpx2.AsyncClient) -> str:
    """The path of a running sandbox."""
    made = await http.post("/api/sandboxes", json={})
    return f"/api/sandboxes/{made.json()['id']}"
