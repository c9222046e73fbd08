"""`/api/runs` on a real server, at a real local brain that needs no hands."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from api_stand_in import ADMIN_KEY, no_files, served_api
from brain_process import BrainProcess, script
from handiwork.api.runs import sse
from handiwork.brains.conversation import conversation
from handiwork.model.run import RunEvent
from handiwork.sessions.runs import Runs
from handiwork.testing.store import MemoryStore

SAYS = {"task": "go", "model": "scripted", "system": script({"say": "said ${text}"})}
WAITS = SAYS | {"system": script({"call": {"tool": "bash", "input": {"command": "true"}}})}


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory):
    with BrainProcess.start(tmp_path_factory.mktemp("brain") / "brain.db") as brain:
        yield brain


@pytest.fixture
async def http(brain: BrainProcess, tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    store = MemoryStore()
    async with (
        conversation(base_url=brain.base_url, api_key=brain.api_key) as talk,
        Runs(
            store=store,
            talk=talk,
            environment_id=brain.environment_id,
            files=no_files,
            clock=lambda: datetime.now(UTC),
        ) as runs,
        served_api(tmp_path, runs=runs, store=store) as served,
        httpx2.AsyncClient(
            base_url=served.url,
            headers={"Authorization": f"Bearer {ADMIN_KEY}"},
            trust_env=False,
            timeout=30,
        ) as http,
    ):
        yield http


async def test_the_answer_waits_for_the_end(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/api/runs", json=SAYS)
    run = answer.json()
    assert (answer.status_code, run["state"], run["message"]) == (200, "ended", "said go")
    assert answer.headers["location"] == f"/api/runs/{run['id']}"
    assert run["list_cost"] is None
    assert (await http.get(f"/api/runs/{run['id']}")).json() == run
    assert (await http.get("/api/runs")).json()["data"] == [run]


async def test_one_that_still_runs_is_told_as_such(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/api/runs", json=WAITS | {"wait_seconds": 0})
    run = answer.json()
    assert (answer.status_code, run["state"]) == (202, "running")
    path = answer.headers["location"]
    assert (await http.get(path)).json()["state"] == "running"
    assert (await http.post(f"{path}/cancel")).json()["state"] == "cancelled"
    assert (await http.post(f"{path}/cancel")).status_code == 409


async def test_events_as_they_come(http: httpx2.AsyncClient) -> None:
    stream = {"Accept": "text/event-stream"}
    async with http.stream("POST", "/api/runs", json=SAYS, headers=stream) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = (await answer.aread()).decode()
    frames = [
        frame.split("\n") for frame in text.split("\n\n") if frame.startswith(("event", "id"))
    ]
    named = [line for frame in frames for line in frame if line.startswith("event: ")]
    assert named[0] == named[-1] == "event: run"
    assert set(named[1:-1]) == {"event: event"}
    last = json.loads(frames[-1][-1].removeprefix("data: "))
    assert (last["state"], last["message"]) == ("ended", "said go")
    ids = [frame[0].removeprefix("id: ") for frame in frames[1:-1]]
    path = f"/api/runs/{last['id']}/events/stream"
    again = (await http.get(path, headers={"Last-Event-ID": ids[1]})).text
    assert f"id: {ids[1]}\n" not in again
    assert f"id: {ids[2]}\n" in again


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"task": ""}, 400),
        ({"task": "go"}, 400),
        (SAYS | {"timeout_seconds": 0}, 400),
        (SAYS | {"timeout_seconds": 10**9}, 400),
        (SAYS | {"unknown": 1}, 400),
        ({"task": "go", "agent": "agent_01aaaaaaaaaaaaaaaaaaaaaa"}, 404),
    ],
)
async def test_what_is_refused(http: httpx2.AsyncClient, body: object, status: int) -> None:
    assert (await http.post("/api/runs", json=body)).status_code == status
    assert (await http.get("/api/runs")).json()["data"] == []


async def test_what_is_not_there(http: httpx2.AsyncClient) -> None:
    for path in ("", "/events/stream"):
        assert (await http.get(f"/api/runs/run_none{path}")).status_code == 404
    assert (await http.post("/api/runs/run_none/cancel")).status_code == 404


def test_an_id_cannot_break_its_frame() -> None:
    event = RunEvent(kind="a\n\nb", id="x\ndata: forged")
    (frame,) = sse("event", event, event.id).decode().split("\n\n")[:-1]
    assert frame.startswith("event: event\ndata: {")
    assert frame.count("\n") == 1
