"""Answers a GET that was answered within the last minute. Its rule needs `body_bytes`.

What is kept is one tenant's and one place's; it goes with the process.
"""

import time
from collections import OrderedDict

from handiwork.hooks import Answer, Context, Request, Response

SECONDS = 60.0
MOST = 256

Key = tuple[str, str, int, str, str]
kept: OrderedDict[Key, tuple[float, Answer]] = OrderedDict()


def key_of(ctx: Context, request: Request) -> Key:
    return (ctx.tenant, request.host, request.port, request.path, request.query)


async def on_request(ctx: Context, request: Request) -> Answer | None:
    at, answer = kept.get(key_of(ctx, request), (0.0, None))
    fresh = answer is not None and time.monotonic() - at < SECONDS
    return answer if fresh and request.method == "GET" else None


async def on_response(ctx: Context, request: Request, response: Response) -> None:
    private = "authorization" in request.headers or "set-cookie" in response.headers
    if request.method != "GET" or response.status != 200 or response.body is None or private:
        return
    content_type = response.headers.get("content-type", "application/octet-stream")
    headers = (("content-type", content_type), ("x-from-cache", "yes"))
    kept[key_of(ctx, request)] = (time.monotonic(), Answer(headers=headers, body=response.body))
    while len(kept) > MOST:
        kept.popitem(last=False)
