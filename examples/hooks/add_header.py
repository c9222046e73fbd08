"""Adds a header that says on whose behalf a request is made."""

from handiwork.hooks import Context, Request


async def on_request(ctx: Context, request: Request) -> None:
    request.headers.set("x-requested-for", ctx.agent_id or ctx.sandbox_id)
