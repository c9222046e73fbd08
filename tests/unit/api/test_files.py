"""Files over HTTP: raw bytes, and never something that a browser would run."""

import httpx2

from api_stand_in import Served

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
