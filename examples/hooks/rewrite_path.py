"""Sends requests for the first version of an interface to the second. They are judged again."""

from handiwork.hooks import Context, Request


async def on_request(ctx: Context, request: Request) -> None:
    if request.path.startswith("/v1/"):
        request.path = "/v2/" + request.path.removeprefix("/v1/")
