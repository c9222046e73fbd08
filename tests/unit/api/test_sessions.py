"""Sessions over HTTP: looked at, followed, stopped."""

import asyncio
import json
from datetime import UTC, datetime

import httpx2
import pytest

from api_stand_in import NOW, Served
from handiwork.api.sessions import sse
from handiwork.model.session import Session, SessionEvent, SessionState


@pytest.fixture
async def session(served: Served) -> Session:
    session = Session(
        id="sesn_1",
        environment_id="env_1",
        state=SessionState.ACTIVE,
        created_at=NOW,
        updated_at=NOW,
    )
    await served.store.sessions.save(session)
    for number in range(3):
        await served.store.sessions.record("sesn_1", "tool", {"number": number}, NOW)
    return session


async def test_list_get_stop(served: Served, http: httpx2.AsyncClient, session: Session) -> None:
    [listed] = (await http.get("/api/sessions")).json()["data"]
    assert listed == (await http.get("/api/sessions/sesn_1")).json()
    assert (await http.get("/api/sessions?state=lost")).json()["data"] == []
    assert (await http.get("/api/sessions?state=odd")).status_code == 400
    assert (await http.post("/api/sessions/sesn_1/stop")).status_code == 200
    assert served.stopped == ["sesn_1"]
    assert (await http.post("/api/sessions/sesn_2/stop")).status_code == 404
    assert served.stopped == ["sesn_1"]


async def test_events_after(http: httpx2.AsyncClient, session: Session) -> None:
    events = (await http.get("/api/sessions/sesn_1/events?after=1")).json()["data"]
    assert [event["sequence"] for event in events] == [2, 3]
    assert (await http.get("/api/sessions/none/events")).status_code == 404
    assert (await http.get("/api/sessions/none/events/stream")).status_code == 404


@pytest.mark.parametrize(
    ("query", "headers", "expected"),
    [
        ("", {}, [1, 2, 3, 4]),
        ("?after=2", {}, [3, 4]),
        ("?after=1", {"Last-Event-ID": "3"}, [4]),
    ],
)
async def test_following_sees_what_was_and_what_comes(
    served: Served,
    http: httpx2.AsyncClient,
    session: Session,
    query: str,
    headers: dict[str, str],
    expected: list[int],
) -> None:
    seen: list[int] = []
    url = f"/api/sessions/sesn_1/events/stream{query}"
    async with http.stream("GET", url, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        await served.store.sessions.record("sesn_1", "idle", {}, NOW)
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                seen.append(json.loads(line.removeprefix("data: "))["sequence"])
            if seen and seen[-1] == 4:
                break
    assert seen == expected


async def test_a_stop_of_the_server_ends_the_stream(tmp_path: object) -> None:
    from pathlib import Path

    from api_stand_in import served_api

    assert isinstance(tmp_path, Path)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        lines: list[str] = []
        async with served_api(tmp_path) as served:
            await served.store.sessions.save(
                Session(
                    id="sesn_1",
                    environment_id="env_1",
                    state=SessionState.ACTIVE,
                    created_at=NOW,
                    updated_at=NOW,
                )
            )
            open_now = asyncio.Event()

            async def follow() -> None:
                async with httpx2.AsyncClient(
                    base_url=served.url, headers=served.authorization, trust_env=False
                ) as http:
                    url = "/api/sessions/sesn_1/events/stream"
                    async with http.stream("GET", url) as answer:
                        async for line in answer.aiter_lines():
                            lines.append(line)
                            open_now.set()

            group.create_task(follow())
            await open_now.wait()
    assert lines[0] == ": open"


def test_an_event_cannot_break_out_of_its_frame() -> None:
    event = SessionEvent(
        sequence=7,
        session_id="sesn_1",
        at=datetime(2026, 1, 1, tzinfo=UTC),
        kind="tool\n\nevent: forged",
        data={"name": "a\nid: 9\r\n\r\ndata: x"},
    )
    frame = sse(event).decode()
    assert frame.count("\n") == 4
    assert "\r" not in frame
    assert frame.startswith("id: 7\nevent: session\ndata: {")
