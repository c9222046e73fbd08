"""A world of each tier for the attacks of a file."""

import pytest
import pytest_asyncio

from attacks import world as worlds

PARAMS = [
    name if tier.shares_kernel else pytest.param(name, marks=[pytest.mark.slow, *tier.marks])
    for name, tier in worlds.TIERS.items()
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PARAMS)
async def world(request, tmp_path_factory):
    tier = worlds.TIERS[request.param]
    async with worlds.opened(tier, tmp_path_factory.mktemp("data")) as found:
        yield found
