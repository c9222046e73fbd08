"""`/api/hooks`: which hooks there are, and what is wrong with those whose file is broken."""

from litestar import Router, get

from handiwork.api.control import Injected
from handiwork.model.hook import HookInfo
from handiwork.model.wire import Listing


@get("/")
async def list_hooks(control: Injected) -> Listing[HookInfo]:
    """List hooks; none where they are off."""
    return Listing(data=await control.hooks.catalog() if control.hooks else ())


routes = Router("/api/hooks", route_handlers=[list_hooks])
