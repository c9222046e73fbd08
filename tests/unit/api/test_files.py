"""Files over HTTP: raw bytes, as they come, and never something that a browser would run."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest

from api_stand_in import Served
from handiwork.api import files as module
from pretend_files import PretendFiles

RAW = bytes(range(256))


async def test_bytes_come_back_as_they_went(http: httpx2.AsyncClient, box: str) -> None:
    path = {"path": "/workspace/dir/file.html"}
    written = await http.put(f"{box}/files", params=path | {"mode": 0o755}, content=RAW)
    assert written.status_code == 204
    read = await http.get(f"{box}/files", params=path)
    assert read.content == RAW
    part = await http.get(f"{box}/files", params=path | {"offset": 10, "limit_bytes": 5})
    assert part.content == RAW[10:15]
    assert read.headers["content-type"] == "application/octet-stream"
    assert read.headers["x-content-type-options"] == "nosniff"
    assert read.headers["content-disposition"] == "attachment"
    assert read.headers["cache-control"] == "no-store"


async def test_the_tree(http: httpx2.AsyncClient, box: str) -> None:
    made = await http.post(f"{box}/files/mkdir", json={"path": "/workspace/a/b"})
    assert made.status_code == 204
    await http.put(f"{box}/files", params={"path": "/workspace/a/x"}, content=b"1")
    listed = await http.get(f"{box}/files/list", params={"path": "/workspace/a"})
    assert [(i["name"], i["kind"]) for i in listed.json()["data"]] == [
        ("b", "directory"),
        ("x", "file"),
    ]
    moved = {"source": "/workspace/a/x", "target": "/workspace/y"}
    assert (await http.post(f"{box}/files/move", json=moved)).status_code == 204
    told = await http.get(f"{box}/files/stat", params={"path": "/workspace/y"})
    assert told.json()["size"] == 1
    removed = await http.delete(f"{box}/files", params={"path": "/workspace/a", "recursive": True})
    assert removed.status_code == 204
    missing = await http.get(f"{box}/files", params={"path": "/workspace/a"})
    assert missing.status_code == 422
    assert missing.json()["error"]["errno"] == 2


async def test_a_path_is_needed(http: httpx2.AsyncClient, box: str) -> None:
    answer = await http.get(f"{box}/files")
    assert answer.status_code == 400
    assert "path" in answer.json()["error"]["message"]


async def test_a_file_may_be_larger_than_other_bodies(
    served: Served, http: httpx2.AsyncClient, box: str
) -> None:
    data = b"x" * (3 * 1024 * 1024)
    path = {"path": "/workspace/big"}
    assert (await http.put(f"{box}/files", params=path, content=data)).status_code == 204
    assert (await http.get(f"{box}/files", params=path)).content == data


async def test_a_name_that_is_no_text_hides_no_other(
    served: Served, http: httpx2.AsyncClient, box: str
) -> None:
    sandbox = await served.sandboxes.use(box.rpartition("/")[2])
    for name in ("plain", "\udcff\udcfe"):  # as Python tells bytes that are no UTF-8
        await sandbox.files.write(f"/workspace/names/{name}", b"")
    listed = await http.get(f"{box}/files/list", params={"path": "/workspace/names"})
    assert [entry["name"] for entry in listed.json()["data"]] == ["plain", "\ufffd\ufffd"]


MIB = 1 << 20


@pytest.fixture
def files(served: Served, box: str) -> PretendFiles:
    return served.sandboxes.live[box.rpartition("/")[2]].files


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  what is awaited is a fact, not an event
            await asyncio.sleep(0.01)


async def test_a_body_is_written_as_it_comes(
    http: httpx2.AsyncClient, box: str, files: PretendFiles
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(MIB)
        await until(lambda: files.arrived == MIB)
        assert "/workspace/large" not in files.content
        for _ in range(4):
            yield bytes(MIB)

    path = {"path": "/workspace/large"}
    assert (await http.put(f"{box}/files", params=path, content=pieces())).status_code == 204
    assert len(files.content["/workspace/large"] or b"") == 5 * MIB
    assert files.most <= MIB


async def test_a_body_that_breaks_off_is_nothing(
    served: Served, box: str, files: PretendFiles
) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = {"host": "127.0.0.1", "content-length": str(MIB), **served.authorization}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    line = f"PUT {box}/files?path=/workspace/half HTTP/1.1\r\n{lines}\r\n"
    writer.write(line.encode() + bytes(MIB // 2))
    await until(lambda: files.arrived == MIB // 2)
    writer.close()
    await until(lambda: not files.streams)
    assert "/workspace/half" not in files.content


async def test_what_cannot_be_written_is_told_before_the_body_ends(
    http: httpx2.AsyncClient, box: str
) -> None:
    path = {"path": "/none/file", "parents": "false"}
    answer = await http.put(f"{box}/files", params=path, content=bytes(30 * MIB))
    assert (answer.status_code, answer.json()["error"]["errno"]) == (422, 2)


async def test_a_file_is_sent_as_it_is_taken(
    http: httpx2.AsyncClient, box: str, files: PretendFiles
) -> None:
    path = {"path": "/endless"}
    async with http.stream("GET", f"{box}/files", params=path) as answer:
        assert "content-length" not in answer.headers
        taken = 0
        async for piece in answer.aiter_bytes():
            taken += len(piece)
            if taken > 5 * MIB:
                break
        assert files.streams == 1
    await until(lambda: not files.streams)


async def test_a_file_that_breaks_off_is_cut_off(http: httpx2.AsyncClient, box: str) -> None:
    with pytest.raises(httpx2.RemoteProtocolError):
        await http.get(f"{box}/files", params={"path": "/torn"})


async def test_a_reader_that_takes_nothing_is_left(
    http: httpx2.AsyncClient, box: str, files: PretendFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNTAKEN_SECONDS", 0.3)
    async with http.stream("GET", f"{box}/files", params={"path": "/endless"}):
        await until(lambda: not files.streams)
