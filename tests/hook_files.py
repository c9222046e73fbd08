"""Hooks of every kind, good and bad, and how tests ask for something that passes them."""

from handiwork.model.egress import EgressGrant
from hook_world import HookWorld

HEAD = "import asyncio, os, time\nfrom handiwork.hooks import Answer, Deny\n"
REQUEST = HEAD + "async def on_request(ctx, request):\n    "
RESPONSE = HEAD + "async def on_response(ctx, request, response):\n    "
OTHER = "deep.example.org"

HOOKS = {
    "plain": REQUEST + "request.headers.set('x-hook', request.headers.get('x-hook') + 'p')",
    "second": REQUEST + "request.headers.set('x-hook', request.headers.get('x-hook') + 's')",
    "denies": REQUEST + "return Deny('not on a ' + request.headers.get('x-day', 'Sunday'))",
    "answers": REQUEST
    + "return Answer(status=418, headers=(('x-from', 'hook'),), body=ctx.secrets.get('key', 'tea').encode())",
    "moves": REQUEST + f"request.host = '{OTHER}'",
    "strays": REQUEST + "request.host = 'elsewhere.test'",
    "private": REQUEST + "request.host, request.path = '169.254.169.254', '/latest'",
    "digs": REQUEST + "request.path = '/admin/' + request.path",
    "smuggles": REQUEST + "request.headers.set('x-a', 'b\\r\\nx-evil: yes')",
    "splits": REQUEST + "request.path = '/a HTTP/1.1\\r\\nhost: evil\\r\\n\\r\\nGET /b'",
    "queries": REQUEST + "request.query = 'a b\\r\\nx: y'",
    "frames": REQUEST
    + "request.headers.set('content-length', '3'); request.headers.set('transfer-encoding', 'chunked')"
    "; request.headers.set('host', 'evil.test')",
    "body": REQUEST + "request.body = request.body.upper() + b'!'",
    "blind": REQUEST + "request.headers.set('x-body', repr(request.body))",
    "tells": REQUEST
    + "request.headers.set('x-saw', repr(sorted(request.headers)) + repr(dict(ctx.secrets)))",
    "method": REQUEST + "request.method = 'DELETE'",
    "number": REQUEST + "return 17",
    "nonsense": REQUEST + "request.headers = 3; request.port = object()",
    "types": REQUEST + "request.port = 'x'",
    "raises": REQUEST + "raise KeyError('quotes ' + request.host)",
    "leaves": REQUEST + "raise SystemExit(0)",
    "dies": REQUEST + "os._exit(3)",
    "hangs": REQUEST + "await asyncio.sleep(60)",
    "begins": REQUEST + "open(__file__ + '.began', 'w').close(); await asyncio.sleep(60)",
    "blocks": REQUEST + "\n    while True: pass",
    "clings": REQUEST
    + "\n    while True:\n        try: await asyncio.sleep(9)\n        except asyncio.CancelledError: pass",
    "thread": REQUEST + "await asyncio.to_thread(time.sleep, 9)",
    "eats": REQUEST + "\n    kept = []\n    while True: kept.append(bytes(1 << 24))",
    "huge": REQUEST + "return Answer(body=bytes(9 << 20))",
    "shows": RESPONSE
    + "response.headers.set('x-seen', repr(list(response.headers)) + repr(response.body) + repr(list(request.headers)))",
    "status": RESPONSE + "response.status = 203; response.headers.set('x-hook', 'r')",
    "replaces": RESPONSE + "response.body = b'replaced'",
    "refuses": RESPONSE + "return Deny('not this answer')",
    "order": HEAD + "async def on_request(ctx, request):\n    request.headers.set('x-hook', 'o')\n"
    "async def on_response(ctx, request, response):\n    response.headers.add('x-order', 'o')\n",
    "order2": RESPONSE + "response.headers.add('x-order', 'p')",
    "leaks": RESPONSE
    + "response.headers.set('x-leak', ctx.secrets['key']); response.body = ctx.secrets['key'].encode()",
    "slow": REQUEST + "await asyncio.sleep(0.5)",
}


async def ask(here: HookWorld, granted: EgressGrant, target: str = "/", **asked: object):
    client = await here.tls(await here.open(granted))
    return await client.request(target, **asked)  # type: ignore[arg-type]


async def refused(here: HookWorld, name: str, **granted: object) -> str:
    """Return the reason for which a request under the hook is refused; nothing of it was sent."""
    seen = len(here.upstream.seen)
    status, headers, body = await ask(here, here.hooking(name, **granted))  # type: ignore[arg-type]
    assert (status, headers["x-handiwork-rule"]) == (403, f"hook:{name}")
    assert len(here.upstream.seen) == seen
    return body.decode()
