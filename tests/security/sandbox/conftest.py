"""A world of each tier for the attacks of a file."""

import pytest_asyncio

from attacks import world as worlds


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(worlds.TIERS))
async def world(request, tmp_path_factory):
    tier = worlds.TIERS[request.param]
    async with worlds.opened(tier, tmp_path_factory.mktemp("data")) as found:
        yield found
