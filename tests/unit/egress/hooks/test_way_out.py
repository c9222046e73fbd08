"""Requests of hooks: one line is one line, an answer is whole or an error."""

import asyncio
from pathlib import Path

import pytest

from handiwork.egress.hooks import way_out
from handiwork.egress.hooks.way_out import WayOut, head


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("ftp://a.test/", ()),
        ("/path", ()),
        ("https:///path", ()),
        ("https://a.test/\r\nx: y", ()),
        ("https://a.test/ b", ()),
        ("https://a.test/", (("x", "a\r\nb: c"),)),
        ("https://a.test/", (("x\n", "a"),)),
    ],
)
def test_a_head_is_not_written_out_of_parts_that_are_others(url: str, headers) -> None:
    with pytest.raises(ValueError, match=r"hook's URL|control character"):
        head("GET", url, headers, b"")


def test_framing_is_ours() -> None:
    made = head("POST", "https://a.test/x#y", (("Content-Length", "9"), ("X-A", "b")), b"abc")
    assert made.startswith(b"POST https://a.test/x HTTP/1.1\r\nhost: a.test\r\nX-A: b\r\n")
    assert made.count(b"ontent-") == 1


async def ask(directory: Path, raw: bytes, method: str = "GET"):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    path = directory / "s"
    async with await asyncio.start_unix_server(serve, path):
        return await WayOut(str(path)).send(method, "https://a.test/")


async def test_answers(tmp_path: Path) -> None:
    got = await ask(tmp_path, b"HTTP/1.1 201 C\r\nX-A: b\r\ncontent-length: 3\r\n\r\nabc")
    assert (got.status, got.headers.get("x-a"), got.body) == (201, "b", b"abc")
    raw = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    assert (await ask(tmp_path, raw)).body == b"abc"
    got = await ask(tmp_path, b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", "HEAD")
    assert got.body == b""


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000,
    ],
)
async def test_what_is_not_a_whole_answer_is_an_error(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(ConnectionError):
        await ask(tmp_path, raw)


async def test_an_answer_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(way_out, "MAX_ANSWER_BYTES", 10)
    with pytest.raises(ConnectionError, match="too large"):
        await ask(tmp_path, b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n" + b"x" * 11)


async def test_without_a_way_out_nothing_is_sent() -> None:
    with pytest.raises(OSError, match="no way out"):
        await WayOut("").get("https://a.test/")
