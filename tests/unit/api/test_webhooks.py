"""`POST /webhooks` on a real server: who is believed, what is kept, who is woken."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from standardwebhooks import Webhook

from api_stand_in import NOW, Served, served_api
from handiwork.api import webhooks

OLD, KEY = bytes(range(32)), bytes(range(100, 132))


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with served_api(tmp_path, webhook_keys=(OLD, KEY)) as served:
        yield served


@pytest.fixture
async def stranger(served: Served) -> AsyncIterator[httpx2.AsyncClient]:
    """Somebody without the admin key, who calls us by a public name."""
    async with httpx2.AsyncClient(
        base_url=served.url, headers={"Host": "hooks.example"}, trust_env=False
    ) as http:
        yield http


def event(kind: str = "session.status_run_started", **more: Any) -> bytes:
    return json.dumps({"type": "event", "data": {"type": kind, "id": "sesn_01A"}} | more).encode()


def signed(
    body: bytes, *, id: str = "event_1", key: bytes = KEY, seconds: int = 0
) -> dict[str, str]:
    at = NOW + timedelta(seconds=seconds)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(key).sign(id, at, body.decode()),
    }


async def send(http: httpx2.AsyncClient, body: bytes, **signing: Any) -> int:
    answer = await http.post("/webhooks", content=body, headers=signed(body, **signing))
    return answer.status_code


async def test_a_signed_event_is_kept_and_wakes(
    served: Served, stranger: httpx2.AsyncClient, http: httpx2.AsyncClient
) -> None:
    assert await send(stranger, event()) == 200
    (kept,) = (await http.get("/api/webhooks")).json()["data"]
    assert (kept["id"], kept["kind"], kept["subject_id"], kept["known"]) == (
        "event_1",
        "session.status_run_started",
        "sesn_01A",
        True,
    )
    assert served.woken == [1]


async def test_any_of_the_keys_will_do(served: Served, stranger: httpx2.AsyncClient) -> None:
    assert await send(stranger, event(), key=OLD) == 200
    assert await send(stranger, event(), id="event_2", key=KEY) == 200
    assert await send(stranger, event(), id="event_3", key=bytes(32)) == 401
    assert len(served.woken) == 2


async def test_a_second_delivery_is_acknowledged_and_does_nothing(
    served: Served, stranger: httpx2.AsyncClient
) -> None:
    assert [await send(stranger, event(), seconds=n) for n in range(3)] == [200] * 3
    assert served.woken == [1]
    assert len(await served.store.webhooks.list()) == 1


async def test_kinds_that_are_not_known_are_kept_and_ignored(
    served: Served, stranger: httpx2.AsyncClient
) -> None:
    assert await send(stranger, event("vault.archived"), id="a") == 200
    assert await send(stranger, event("session.of_next_year"), id="b") == 200
    assert [one.known for one in await served.store.webhooks.list()] == [False, False]
    assert served.woken == []


@pytest.mark.parametrize("signature", ["", "odd", "v1", "v1,", "v1,?", "v2,AAAA", "a b c", "\xff"])
async def test_odd_signatures_are_refused(
    signature: str, served: Served, stranger: httpx2.AsyncClient
) -> None:
    raw = {**signed(event()), "webhook-signature": signature}
    headers = [(name.encode(), value.encode("latin-1")) for name, value in raw.items()]
    answer = await stranger.post("/webhooks", content=event(), headers=headers)
    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "bad_signature")
    assert (served.woken, await served.store.webhooks.list()) == ([], [])


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
async def test_missing_headers_are_refused(missing: str, stranger: httpx2.AsyncClient) -> None:
    headers = signed(event())
    del headers[missing]
    assert (await stranger.post("/webhooks", content=event(), headers=headers)).status_code == 401


async def test_times_and_bodies_that_were_not_signed(stranger: httpx2.AsyncClient) -> None:
    assert await send(stranger, event(), id="a", seconds=-299) == 200
    assert await send(stranger, event(), id="b", seconds=-301) == 401
    assert await send(stranger, event(), id="c", seconds=301) == 401
    headers = signed(event())
    changed = await stranger.post("/webhooks", content=event() + b" ", headers=headers)
    assert changed.status_code == 401


@pytest.mark.parametrize("body", [b"", b"null", b"{", b'{"data":{}}', b'{"data":' * 50_000])
async def test_signed_bodies_that_are_no_event(body: bytes, stranger: httpx2.AsyncClient) -> None:
    assert await send(stranger, body) == 400


async def test_bytes_that_are_no_text(stranger: httpx2.AsyncClient) -> None:
    """The library signs text alone; HMAC over the raw bytes is what is checked."""
    import base64

    from standardwebhooks.webhooks import hmac_data

    body = b'{"data":{"type":"\xff"}}'
    headers = signed(event())
    message = b"event_1.%b.%b" % (headers["webhook-timestamp"].encode(), body)
    signature = base64.b64encode(hmac_data(KEY, message)).decode()
    headers["webhook-signature"] = f"v1,{signature}"
    assert (await stranger.post("/webhooks", content=body, headers=headers)).status_code == 400


async def test_bodies_have_a_limit(stranger: httpx2.AsyncClient) -> None:
    longest = event(pad="x" * (webhooks.MAX_BODY_BYTES - len(event(pad=""))))
    assert len(longest) == webhooks.MAX_BODY_BYTES
    assert await send(stranger, longest) == 200
    assert await send(stranger, longest + b" ", id="event_2") == 413

    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 65536

    answer = await stranger.post("/webhooks", content=unannounced(), headers=signed(b"x"))
    assert answer.status_code == 413


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_only_post_is_served(method: str, stranger: httpx2.AsyncClient) -> None:
    assert (await stranger.request(method, "/webhooks")).status_code == 405


async def test_nothing_else_is_open(stranger: httpx2.AsyncClient) -> None:
    for path in ("/webhooks/", "/api/webhooks", "/webhooks/../api/webhooks", "/healthz"):
        assert (await stranger.get(path)).status_code == 403


async def test_without_a_key_nobody_is_believed(tmp_path: Path) -> None:
    async with served_api(tmp_path) as served, httpx2.AsyncClient(base_url=served.url) as http:
        for key in (KEY, b"\0"):
            assert await send(http, event(), key=key) == 404
        assert (served.woken, await served.store.webhooks.list()) == ([], [])


async def test_too_many_are_told_to_come_later(
    served: Served, stranger: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks.Rate, "admit", lambda _self, _now: False)
    answer = await stranger.post("/webhooks", content=event(), headers=signed(event()))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
    assert served.woken == []


async def test_slow_senders_hold_no_place_for_long(
    served: Served, stranger: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "BODY_SECONDS", 1)
    host, port = served.url.removeprefix("http://").split(":")
    head = "".join(f"{name}: {value}\r\n" for name, value in signed(event()).items())
    request = f"POST /webhooks HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n{head}\r\n"
    slow = [await asyncio.open_connection(host, int(port)) for _ in range(webhooks.MAX_BODIES)]
    for _, writer in slow:
        writer.write(request.encode())
    statuses = set()
    async with asyncio.timeout(20):
        while 429 not in statuses:
            statuses.add(await send(stranger, event()))
        for reader, writer in slow:
            assert b" 408 " in await reader.readline()
            writer.close()
            await writer.wait_closed()
    assert await send(stranger, event(), id="later") == 200


async def test_a_sender_that_leaves_in_the_middle(
    served: Served, stranger: httpx2.AsyncClient
) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    head = "".join(f"{name}: {value}\r\n" for name, value in signed(event()).items())
    for _ in range(webhooks.MAX_BODIES + 1):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"POST /webhooks HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n{head}\r\na".encode()
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    async with asyncio.timeout(20):
        while await send(stranger, event()) != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
