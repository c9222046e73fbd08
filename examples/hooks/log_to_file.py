"""Writes one line for each answer into a file of the hooks' own directory."""

import json

from handiwork.hooks import Context, Request, Response


async def on_response(ctx: Context, request: Request, response: Response) -> None:
    line = {
        "session": ctx.session_id,
        "method": request.method,
        "url": f"{request.scheme}://{request.host}{request.path}",
        "status": response.status,
    }
    with (ctx.directory / "answers.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
