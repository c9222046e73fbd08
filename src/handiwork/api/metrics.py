"""`/metrics`: what Prometheus scrapes."""

import asyncio

from litestar import Response, get

from handiwork.api.control import Injected
from handiwork.observe.metrics import CONTENT_TYPE, Census


@get("/metrics", media_type=CONTENT_TYPE)
async def metrics(control: Injected) -> Response[bytes]:
    """Tell what is counted, in Prometheus' text format."""
    census = Census(
        sessions=await control.store.sessions.counts(),
        sandboxes=await control.store.sandboxes.counts(),
        tasks=len(asyncio.all_tasks()),
    )
    return Response(control.metrics.text(census, control.now()), media_type=CONTENT_TYPE)


routes = [metrics]
