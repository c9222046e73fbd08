"""Trees over HTTP: a tar as it is or in frames, and one that goes in; what is not whole is not taken for it."""

import asyncio
import io
import json
import signal
import tarfile
from collections.abc import AsyncIterator

import httpx2
import pytest

from api_stand_in import Served
from image_archives import entry, tar

FRAMES = {"accept": "application/x-ndjson"}


async def test_a_tree_is_a_plain_tar(served: Served, http: httpx2.AsyncClient, box: str) -> None:
    (sandbox,) = served.sandboxes.live.values()
    sandbox.files.content = {"/workspace": None, "/workspace/f": b"x" * 9000, "/workspace/p|": b""}
    answer = await http.get(f"{box}/files/tree?path=/workspace")
    assert answer.headers["content-type"] == "application/x-tar"
    assert answer.headers["x-content-type-options"] == "nosniff"
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        assert archive.getnames() == ["./workspace", "./workspace/f"]
        assert archive.extractfile("./workspace/f").read() == b"x" * 9000
    assert answer.content.endswith(bytes(1024))


async def test_frames_tell_what_was_left_out(
    served: Served, http: httpx2.AsyncClient, box: str
) -> None:
    (sandbox,) = served.sandboxes.live.values()
    sandbox.files.content = {"/workspace": None, "/workspace/p|": b""}
    answer = await http.get(f"{box}/files/tree?path=/workspace", headers=FRAMES)
    frames = [json.loads(line) for line in answer.text.splitlines()]
    assert all(list(frame) == ["data"] for frame in frames[:-1])
    assert frames[-1]["report"]["skipped"] == ["./workspace/p|: a FIFO"]


async def test_what_is_not_whole(served: Served, http: httpx2.AsyncClient, box: str) -> None:
    (sandbox,) = served.sandboxes.live.values()
    sandbox.files.content["/workspace/f"] = b"x" * 9000
    sandbox.tar_code, sandbox.tar_says = 2, b"tar: ./f: Input/output error\n"
    framed = await http.get(f"{box}/files/tree?path=/workspace", headers=FRAMES)
    error = json.loads(framed.text.splitlines()[-1])["error"]
    assert (error["type"], error["errno"]) == ("guest", 5)
    assert "Input/output" in error["message"]
    with pytest.raises(httpx2.RemoteProtocolError):
        await http.get(f"{box}/files/tree?path=/workspace")


async def test_a_limit(served: Served, http: httpx2.AsyncClient, box: str) -> None:
    (sandbox,) = served.sandboxes.live.values()
    sandbox.files.content["/workspace/f"] = b"x" * 90_000
    query = "path=/workspace&limit_bytes=1000"
    answer = await http.get(f"{box}/files/tree?{query}", headers=FRAMES)
    assert answer.json()["error"]["errno"] == 27
    assert (await http.get(f"{box}/files/tree?path=/workspace&limit_bytes=0")).status_code == 400
    put = await http.put(f"{box}/files/tree?{query}", content=tar(entry("a", b"x" * 2000)))
    assert put.status_code == 400
    assert "more than 1000 bytes" in put.json()["error"]["message"]


async def test_what_is_not_there(http: httpx2.AsyncClient, box: str) -> None:
    answer = await http.get(f"{box}/files/tree?path=/none")
    assert (answer.status_code, answer.json()["error"]["errno"]) == (422, 2)


async def test_a_tree_goes_in(served: Served, http: httpx2.AsyncClient, box: str) -> None:
    data = tar(entry("a", b"x" * 5000), entry("p", kind=tarfile.FIFOTYPE), entry("b", b"y"))
    answer = await http.put(f"{box}/files/tree?path=/workspace/new", content=data)
    assert answer.status_code == 200
    assert answer.json() == {
        "entries": 3,
        "bytes": len(data),
        "skipped": ["p: a FIFO"],
        "skipped_count": 1,
        "notes": "",
    }
    (sandbox,) = served.sandboxes.live.values()
    assert sandbox.files.content["/workspace/new/a"] == b"x" * 5000
    assert sandbox.files.content["/workspace/new/b"] == b"y"
    assert "/workspace/new/p" not in sandbox.files.content


async def test_a_sender_that_leaves_ends_the_tar(
    served: Served, http: httpx2.AsyncClient, box: str
) -> None:
    (sandbox,) = served.sandboxes.live.values()
    sent = asyncio.Event()

    async def body():
        yield tar(entry("a", b"x" * 5000))[:1024]
        sent.set()
        await asyncio.Event().wait()

    call = asyncio.create_task(http.put(f"{box}/files/tree?path=/workspace", content=body()))
    await sent.wait()
    async with asyncio.timeout(10):
        while not sandbox.requests:  # noqa: ASYNC110  what is told is a list
            await asyncio.sleep(0.01)
    call.cancel()
    async with asyncio.timeout(10):
        while sandbox.signals != [signal.SIGKILL]:  # noqa: ASYNC110  what is told is a list
            await asyncio.sleep(0.01)


async def test_a_taker_that_leaves_before_the_first_piece_ends_the_tar(
    http: httpx2.AsyncClient, box: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def stands(*_: object, **__: object) -> AsyncIterator[bytes]:
        began.set()
        try:
            await asyncio.Event().wait()
            yield b""
        finally:
            ended.set()

    monkeypatch.setattr("handiwork.api.trees.pack", stands)
    call = asyncio.create_task(http.get(f"{box}/files/tree?path=/workspace"))
    async with asyncio.timeout(10):
        await began.wait()
        call.cancel()
        await ended.wait()


async def test_a_taker_that_leaves_ends_the_tar(
    served: Served, http: httpx2.AsyncClient, box: str
) -> None:
    (sandbox,) = served.sandboxes.live.values()
    sandbox.files.content["/workspace/f"] = b"x" * (8 << 20)
    async with http.stream("GET", f"{box}/files/tree?path=/workspace") as answer:
        async for _ in answer.aiter_raw():
            break
    async with asyncio.timeout(10):
        while sandbox.signals != [signal.SIGKILL]:  # noqa: ASYNC110  what is told is a list
            await asyncio.sleep(0.01)
