"""`/api/audit`: what the egress proxy decided."""

from typing import Annotated

from litestar import Router, get
from litestar.params import FromQuery, QueryParameter

from handiwork.api.control import Injected
from handiwork.model.audit import AuditRecord
from handiwork.model.wire import Listing


@get("/")
async def query_audit(
    control: Injected,
    session_id: FromQuery[str | None] = None,
    sandbox_id: FromQuery[str | None] = None,
    allowed: FromQuery[bool | None] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
) -> Listing[AuditRecord]:
    """List decisions, newest first, up to those that ended a moment ago."""
    await control.index_audit()
    records = await control.store.audit.query(
        session_id=session_id, sandbox_id=sandbox_id, allowed=allowed, limit=limit
    )
    return Listing(data=tuple(records))


routes = Router("/api/audit", route_handlers=[query_audit])
