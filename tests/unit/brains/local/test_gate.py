"""The gate: loopback names, no foreign pages, the beta header, a key."""

import json

import pytest

from handiwork.brains.local.errors import WireError
from handiwork.brains.local.gate import BETA, MEMORY_BETA, Gate, check_origin
from handiwork.brains.local.keys import Caller, Keyring, Kind, digest

KEY = "sk-ant-api03-key"


def headers(**named: str) -> list[tuple[bytes, bytes]]:
    values = {"host": "127.0.0.1:8788", "x_api_key": KEY, "anthropic_beta": BETA, **named}
    return [(k.replace("_", "-").encode(), v.encode()) for k, v in values.items() if v]


async def ask(path: str = "/v1/agents", **named: str) -> tuple[int, dict, dict]:
    """Send a request through the gate; status, body and headers of the answer."""
    sent = []

    async def inside(scope, receive, send):
        caller = scope["state"].get("caller")
        body = json.dumps({"kind": caller.kind if caller else None}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def keep(message):
        sent.append(message)

    gate = Gate(inside, Keyring("x", {digest(KEY): Caller(Kind.API)}), lambda p: f"{p}_1")
    scope = {"type": "http", "path": path, "headers": headers(**named)}
    await gate(scope, None, keep)
    return sent[0]["status"], json.loads(sent[1]["body"]), dict(sent[0]["headers"])


@pytest.mark.parametrize(
    ("named", "status"),
    [
        ({}, 200),
        ({"x_api_key": "", "authorization": f"Bearer {KEY}"}, 200),
        ({"anthropic_beta": f"other, {BETA}"}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "[::1]:8788"}, 200),
        ({"origin": "http://127.0.0.1:3000"}, 200),
        ({"x_api_key": ""}, 401),
        ({"x_api_key": "wrong"}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"anthropic_beta": ""}, 404),
        ({"anthropic_beta": f"x{BETA}"}, 404),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": ""}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[broken"}, 403),
    ],
)
async def test_who_may_come_in(named, status):
    answered, body, sent = await ask(**named)
    assert answered == status
    assert sent[b"request-id"] == b"req_1"
    if status != 200:
        assert body["request_id"] == "req_1"


async def test_health_needs_no_key_and_skills_no_beta_header():
    assert (await ask("/healthz", x_api_key="", anthropic_beta=""))[0] == 200
    for path in ("/v1/skills/a/versions/1", "/v1/models", "/v1/files", "/v1/webhook_endpoints"):
        assert (await ask(path, anthropic_beta=""))[0] == 200
    assert (await ask("/v1/memory_stores", anthropic_beta=MEMORY_BETA))[0] == 200
    assert (await ask("/v1/sessions", anthropic_beta=MEMORY_BETA))[0] == 404


def test_two_hosts_are_refused():
    with pytest.raises(WireError):
        check_origin([(b"host", b"localhost"), (b"host", b"localhost")])
