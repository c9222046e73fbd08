"""The client against a real API on real sockets."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api_stand_in import ADMIN_KEY, Served, served_api
from handiwork import Handiwork


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with served_api(tmp_path) as served:
        yield served


@pytest.fixture
async def hw(served: Served) -> AsyncIterator[Handiwork]:
    async with Handiwork(base_url=served.url, api_key=ADMIN_KEY) as hw:
        yield hw
