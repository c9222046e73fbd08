"""What guest code of Python calls."""

import base64

import pytest

from handiwork.sandboxes.isolate.python_cell.names import Namespace, fetcher


class Host:
    def __init__(self, *answers):
        self.asked = []
        self.answers = list(answers)

    async def __call__(self, name, argument):
        self.asked.append((name, argument))
        return self.answers.pop(0) if self.answers else None


async def test_any_name_is_a_function():
    host = Host()
    tools = Namespace("codemode", host)
    await tools.add(a=1, b=2)
    await tools.add({"a": 1}, b=2)
    await tools.add(1, [2], c=3)
    assert host.asked == [
        ("codemode.add", {"a": 1, "b": 2}),
        ("codemode.add", {"a": 1, "b": 2}),
        ("codemode.add", {"$arguments": [1, [2]], "c": 3}),
    ]
    with pytest.raises(AttributeError):
        tools.__len__  # noqa: B018
    assert repr(tools) == "<codemode>"


async def test_names_may_begin_with_a_line():
    host = Host()
    tools = Namespace("codemode", host)
    await tools._1st(a=1)
    await tools._name(b=2)
    await tools._call(c=3)
    assert [name for name, _ in host.asked] == ["codemode._1st", "codemode._name", "codemode._call"]


ANSWER = {
    "status": 201,
    "url": "https://a.test/",
    "redirected": False,
    "headers": [["Content-Type", "text/plain"], ["set-cookie", "a"], ["Set-Cookie", "b"]],
    "body": 7,
}


def piece(data):
    return base64.b64encode(data).decode()


async def test_fetch_from_the_request_to_the_body():
    host = Host(ANSWER, piece(b"\xef\xbb\xbf{"), piece(b'"a": 1}'), None)
    answer = await fetcher(host)("https://a.test", headers={"X": 1}, json={"q": "é"})
    assert (answer.status, answer.ok, answer.url, answer.redirected) == (
        201,
        True,
        "https://a.test/",
        False,
    )
    assert answer.headers == {"content-type": "text/plain", "set-cookie": "a, b"}
    name, asked = host.asked[0]
    assert (name, asked["method"], asked["redirect"]) == ("net.fetch", "POST", "follow")
    assert asked["headers"] == [["X", "1"], ["content-type", "application/json"]]
    assert base64.b64decode(asked["body"]) == b'{"q": "\\u00e9"}'
    assert await answer.text() == '{"a": 1}'
    assert host.asked[1:] == [("net.read", {"body": 7})] * 3
    assert await answer.bytes() == b""  # it was read


async def test_the_shortest_request():
    host = Host({**ANSWER, "status": 404, "body": None})
    answer = await fetcher(host)("https://a.test")
    assert host.asked == [
        (
            "net.fetch",
            {"url": "https://a.test", "method": "GET", "headers": [], "redirect": "follow"},
        )
    ]
    assert not answer.ok


async def test_a_body_as_json_and_piece_by_piece():
    host = Host(ANSWER, piece(b"[1]"), None, ANSWER, piece(b"a"), piece(b"b"), None)
    fetch = fetcher(host)
    assert await (await fetch("https://a.test", body="x")).json() == [1]
    assert host.asked[0][1]["method"] == "POST"
    assert [part async for part in await fetch("https://a.test", body=b"\x00", method="put")] == [
        b"a",
        b"b",
    ]
