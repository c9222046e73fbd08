"""The application as a whole: its description, its log, what it does not speak."""

import io

import httpx2
import structlog

from api_stand_in import ADMIN_KEY, Served
from handiwork.observe import log


async def test_the_description_is_made_from_the_code(http: httpx2.AsyncClient) -> None:
    description = (await http.get("/openapi.json")).json()
    assert description["openapi"].startswith("3.")
    schemas = description["components"]["schemas"]
    assert set(schemas["ExecBody"]["properties"]) >= {"argv", "timeout_seconds", "stdin"}
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (method, path)
    assert all(
        name.split("_")[0] != "Secret" or "value" not in schema.get("properties", {})
        for name, schema in schemas.items()
        if name != "SecretBody"
    )


async def test_a_line_of_the_log_has_no_query_and_no_key(
    served: Served, http: httpx2.AsyncClient
) -> None:
    lines = io.StringIO()
    log.set_up(level="debug", process="test", stream=lines)
    try:
        await http.get("/api/sandboxes/sbx_1/files?path=/workspace/private-name")
        await http.get("/nowhere")
        await httpx2.AsyncClient(base_url=served.url, trust_env=False).get("/api/audit")
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
    text = lines.getvalue()
    assert text.count('"event": "request"') == 3
    assert '"status": 401' in text
    assert "private-name" not in text
    assert ADMIN_KEY not in text


async def test_a_websocket_is_spoken_only_where_one_is_offered(served: Served) -> None:
    headers = served.authorization | {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version": "13",
    }
    async with httpx2.AsyncClient(base_url=served.url, trust_env=False) as http:
        answer = await http.get("/api/sandboxes", headers=headers)
    assert answer.status_code == 403
