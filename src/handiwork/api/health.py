"""`/healthz` and `/readyz`: is it alive, can it serve."""

from litestar import Response, get

from handiwork.api.control import Injected


@get("/healthz")
async def healthz() -> dict[str, str]:
    """Answer at all."""
    return {"status": "alive"}


@get("/readyz")
async def readyz(control: Injected) -> Response[dict[str, str]]:
    """Answer 200 when every part is ready, else 503; why stands beside each part."""
    parts = {part: reason or "ready" for part, reason in control.readiness().items()}
    ready = all(state == "ready" for state in parts.values())
    return Response(parts, status_code=200 if ready else 503)


routes = [healthz, readyz]
