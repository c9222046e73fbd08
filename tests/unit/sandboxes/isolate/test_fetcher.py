"""`net.*` of guest code over a way out that answers by the path that is asked for."""

import asyncio
import base64
import re

import msgspec
import pytest

from handiwork.model.errors import ToolFailedError
from handiwork.sandboxes.isolate import fetcher as module
from handiwork.sandboxes.isolate.fetcher import Fetcher

LARGE = b"x" * 700_000
ANSWERS = {
    "/": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "/large": b"HTTP/1.1 200 OK\r\n\r\n" + LARGE,
    "/there": b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
    "/round": b"HTTP/1.1 302 Found\r\nlocation: /round\r\n\r\n",
    "/away": b"HTTP/1.1 302 Found\r\nlocation: ftp://a.test\r\n\r\n",
    "/broken": b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello",
}


@pytest.fixture
async def way_out(tmp_path):
    asked = []

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = re.findall(rb"content-length: (\d+)", head) or [b"0"]
        asked.append((head, await reader.readexactly(int(length))))
        path = "/" + head.split()[1].decode().split("/", 3)[3]
        writer.write(ANSWERS[path])
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / "exit"):
        yield str(tmp_path / "exit"), asked


@pytest.fixture
def fetcher(way_out):
    found = Fetcher(way_out[0])
    yield found
    found.close()


def raw(**fields):
    return msgspec.Raw(msgspec.json.encode(fields))


async def body_of(fetcher, answer):
    pieces = []
    while (piece := await fetcher.read(raw(body=answer["body"]))) is not None:
        pieces.append(base64.b64decode(piece))
    return b"".join(pieces)


async def test_an_answer_and_its_body(fetcher, way_out):
    data = base64.b64encode(b"sent").decode()
    answer = await fetcher.fetch(
        raw(url="https://a.test/", method="PUT", headers=[["x", "1"]], body=data)
    )
    assert {name: answer[name] for name in ("status", "statusText", "url", "redirected")} == {
        "status": 200,
        "statusText": "OK",
        "url": "https://a.test/",
        "redirected": False,
    }
    assert await body_of(fetcher, answer) == b"hello"
    ((head, body),) = way_out[1]
    assert head.startswith(b"PUT https://a.test/ HTTP/1.1\r\n")
    assert body == b"sent"
    assert await fetcher.read(raw(body=answer["body"])) is None


async def test_a_large_body_comes_in_pieces(fetcher):
    answer = await fetcher.fetch(raw(url="https://a.test/large"))
    assert await body_of(fetcher, answer) == LARGE


async def test_redirects_are_followed_or_shown_or_forbidden(fetcher, way_out):
    answer = await fetcher.fetch(raw(url="https://a.test/there"))
    assert (answer["status"], answer["url"], answer["redirected"]) == (200, "https://a.test/", True)
    assert len(way_out[1]) == 2
    answer = await fetcher.fetch(raw(url="https://a.test/there", redirect="manual"))
    assert (answer["status"], answer["redirected"]) == (302, False)
    for path, mode, told in (
        ("there", "error", "forbids"),
        ("round", "follow", "more than 20 redirects"),
        ("away", "follow", "only http and https"),
    ):
        with pytest.raises(ToolFailedError, match=told):
            await fetcher.fetch(raw(url=f"https://a.test/{path}", redirect=mode))


async def test_a_body_that_breaks_off(fetcher):
    answer = await fetcher.fetch(raw(url="https://a.test/broken"))
    with pytest.raises(ToolFailedError, match="broke off"):
        await body_of(fetcher, answer)
    assert await fetcher.read(raw(body=answer["body"])) is None


async def test_bodies_that_nobody_reads_have_a_number(fetcher, monkeypatch):
    monkeypatch.setattr(module, "OPEN", 2)
    answers = [await fetcher.fetch(raw(url="https://a.test/large")) for _ in range(2)]
    with pytest.raises(ToolFailedError, match="wait to be read"):
        await fetcher.fetch(raw(url="https://a.test/"))
    await fetcher.stop(raw(body=answers[0]["body"]))
    await fetcher.stop(raw(body=answers[0]["body"]))
    assert (await fetcher.fetch(raw(url="https://a.test/")))["status"] == 200


async def test_without_a_way_out_nothing_leaves():
    with pytest.raises(ToolFailedError, match="no way out"):
        await Fetcher("").fetch(raw(url="https://a.test/"))


@pytest.mark.parametrize(
    "fields", [{}, {"url": 1}, {"url": "http://a.test", "more": 1}, {"url": "x", "body": "%"}]
)
async def test_what_is_no_request(fetcher, fields):
    with pytest.raises(ToolFailedError, match="fetch"):
        await fetcher.fetch(raw(**fields))
