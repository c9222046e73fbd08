"""`/api/environments`: whose work is claimed, and how that stands."""

from litestar import Router, get

from handiwork.api.control import Injected
from handiwork.model.environment import EnvironmentStatus
from handiwork.model.wire import Listing


@get("/")
async def list_environments(control: Injected) -> Listing[EnvironmentStatus]:
    """Tell of every environment: state and reason, its queue, leases held, sessions served."""
    return Listing(data=tuple(await control.environments()))


routes = Router("/api/environments", route_handlers=[list_environments])
