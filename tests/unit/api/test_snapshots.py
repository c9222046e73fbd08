"""Snapshots over HTTP."""

import asyncio
from pathlib import Path

import httpx2
import pytest

from api_stand_in import ADMIN_KEY, Served, served_api
from handiwork.model.sandbox import SIZES

OCTETS = {"content-type": "application/octet-stream"}


@pytest.fixture
async def path(http: httpx2.AsyncClient) -> str:
    return f"/api/sandboxes/{(await http.post('/api/sandboxes', json={})).json()['id']}"


async def test_taken_listed_pinned_removed(http: httpx2.AsyncClient, path: str) -> None:
    made = await http.post(f"{path}/snapshots")
    assert (made.status_code, made.json()["number"]) == (201, 1)
    found = (await http.get(f"{path}/snapshots")).json()
    assert (found["snapshots"], found["status"]["failure"]) == ([made.json()], "")
    assert (await http.put(f"{path}/pins/good?number=1")).status_code == 204
    assert (await http.delete(f"{path}/snapshots/1")).status_code == 409
    assert (await http.delete(f"{path}/pins/good")).status_code == 204
    assert (await http.delete(f"{path}/pins/good")).status_code == 404
    assert (await http.delete(f"{path}/snapshots/1")).status_code == 204
    assert (await http.get("/api/sandboxes/sbx_none/snapshots")).status_code == 404


async def test_back_to_one(served: Served, http: httpx2.AsyncClient, path: str) -> None:
    await http.post(f"{path}/snapshots")
    back = await http.post(f"{path}/snapshots/1/rollback", json={})
    assert (back.status_code, back.json()["state"]) == (200, "running")
    await http.post(f"{path}/snapshots/1/rollback", json={"keep_present": False})
    assert served.snapshots.asked == [("rollback", 1, True), ("rollback", 1, False)]
    assert (await http.post(f"{path}/snapshots/7/rollback", json={})).status_code == 404
    assert (await http.post(f"{path}/snapshots/1/rollback", json={"x": 1})).status_code == 400


async def test_what_differs(served: Served, http: httpx2.AsyncClient, path: str) -> None:
    found = await http.get(f"{path}/snapshots/diff?before=1&after=2&path=/a&limit=5")
    assert found.json()["changes"] == [{"path": "/a", "change": "added"}]
    assert served.snapshots.asked == [("diff", 1, 2, "/a", 5)]
    for wrong in ("before=0&after=1", "before=1", "before=1&after=2&limit=10001"):
        assert (await http.get(f"{path}/snapshots/diff?{wrong}")).status_code == 400


async def test_what_differs_is_looked_for_as_long_as_somebody_waits(
    served: Served, http: httpx2.AsyncClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def stands(*_: object, **__: object) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(served.snapshots, "diff", stands)
    call = asyncio.create_task(http.get(f"{path}/snapshots/diff?before=1&after=2"))
    async with asyncio.timeout(10):
        await began.wait()
        call.cancel()
        await ended.wait()


async def test_more_of_one(served: Served, http: httpx2.AsyncClient, path: str) -> None:
    made = await http.post(f"{path}/fork", json={"count": 2, "policy": "open", "wake": False})
    assert len({one["id"] for one in made.json()["data"]}) == 2
    assert served.snapshots.asked == [("fork", 2, None, "open", False)]
    for wrong in ({"count": 0}, {"count": 33}, {"number": 0}, {"session_id": "sesn_1"}):
        assert (await http.post(f"{path}/fork", json=wrong)).status_code == 400


async def test_where_they_are_off_it_says_so(tmp_path: Path) -> None:
    async with (
        served_api(tmp_path, snapshots=None) as served,
        httpx2.AsyncClient(
            base_url=served.url, headers={"Authorization": f"Bearer {ADMIN_KEY}"}
        ) as http,
    ):
        answer = await http.get("/api/sandboxes/sbx_1/snapshots")
        assert answer.status_code == 422
        assert "snapshots.enabled" in answer.json()["error"]["message"]


async def test_out_as_a_file_and_in_again(
    served: Served, http: httpx2.AsyncClient, path: str
) -> None:
    assert (await http.get(f"{path}/snapshots/1/export")).status_code == 404
    await http.post(f"{path}/snapshots")
    out = await http.get(f"{path}/snapshots/1/export")
    assert (out.content, out.headers["content-type"]) == (
        b"HWFILE1\ncontentHWFILE.\n",
        "application/octet-stream",
    )
    made = await http.post(
        "/api/sandboxes/import?policy=&size=small", content=out.content, headers=OCTETS
    )
    assert made.status_code == 201
    (asked,) = served.snapshots.asked
    assert asked[:2] == ("import", out.content)
    assert asked[3] == SIZES["small"]
    wrong = await http.post("/api/sandboxes/import?size=huge", content=b"x", headers=OCTETS)
    assert wrong.status_code == 400
