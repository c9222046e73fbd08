"""Commands over HTTP: whole or as a stream, and dead as soon as their caller is."""

import asyncio
import base64
import json
import signal
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from api_stand_in import PretendSandbox, Served


def only(served: Served) -> PretendSandbox:
    [sandbox] = served.sandboxes.live.values()
    return sandbox


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  what is awaited is a fact, not an event
            await asyncio.sleep(0.01)


async def test_a_result_is_base64(http: httpx2.AsyncClient, box: str) -> None:
    answer = await http.post(f"{box}/exec", json={"argv": ["echo", "ü\x00", "b"]})
    assert answer.status_code == 400
    answer = await http.post(f"{box}/exec", json={"argv": ["echo", "ü", "b"]})
    result = answer.json()
    assert base64.b64decode(result["stdout"]) == "üb".encode()
    assert base64.b64decode(result["stderr"]) == b"done"
    assert result["exit_code"] == 0


async def test_failing_is_a_result(http: httpx2.AsyncClient, box: str) -> None:
    answer = await http.post(f"{box}/exec", json={"argv": ["false"]})
    assert (answer.status_code, answer.json()["exit_code"]) == (200, 1)


async def test_everything_asked_arrives(served: Served, http: httpx2.AsyncClient, box: str) -> None:
    body = {
        "argv": ["cat"],
        "cwd": "/tmp",
        "env": {"A": "b"},
        "stdin": base64.b64encode(b"\x00\xff").decode(),
        "user": "agent",
        "timeout_seconds": 5,
        "output_limit_bytes": 100,
        "merge_stderr": True,
    }
    answer = await http.post(f"{box}/exec", json=body)
    assert base64.b64decode(answer.json()["stdout"]) == b"\x00\xff"
    [request] = only(served).requests
    assert (request.cwd, request.env, request.stdin) == ("/tmp", {"A": "b"}, b"\x00\xff")
    assert (request.user, request.timeout_seconds) == ("agent", 5.0)
    assert (request.output_limit_bytes, request.merge_stderr) == (100, True)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"argv": []},
        {"argv": "ls"},
        {"argv": ["ls"], "timeout": 1},
        {"argv": ["ls"], "timeout_seconds": 100_000},
        {"argv": ["ls"], "timeout_seconds": None},
        {"argv": ["ls"], "env": {"": "x"}},
        {"argv": ["ls"], "cwd": "/a\0b"},
        {"argv": ["ls"], "stdin": "!"},
    ],
)
@pytest.mark.parametrize("verb", ["exec", "exec/stream"])
async def test_what_is_out_of_bounds_does_not_run(
    served: Served, http: httpx2.AsyncClient, box: str, verb: str, body: dict[str, Any]
) -> None:
    answer = await http.post(f"{box}/{verb}", json=body)
    assert answer.status_code == 400
    assert only(served).requests == []


async def test_a_stream_has_a_frame_for_each_piece(http: httpx2.AsyncClient, box: str) -> None:
    answer = await http.post(f"{box}/exec/stream", json={"argv": ["echo", "a", "b"]})
    assert answer.headers["content-type"] == "application/x-ndjson"
    frames = [json.loads(line) for line in answer.text.splitlines()]
    assert [frame.get("stream") for frame in frames] == ["stdout", "stdout", "stderr", None]
    assert base64.b64decode(frames[0]["data"]) == b"a"
    assert frames[-1]["result"]["exit_code"] == 0


@pytest.mark.parametrize(("given", "whole", "stream"), [({}, 8 << 20, 0), (5, 5, 5)])
async def test_of_a_stream_all_is_kept_unless_told(
    served: Served, http: httpx2.AsyncClient, box: str, given: Any, whole: int, stream: int
) -> None:
    limit = {"output_limit_bytes": given} if given else {}
    for verb in ("exec", "exec/stream"):
        await http.post(f"{box}/{verb}", json={"argv": ["true"], **limit})
    limits = [request.output_limit_bytes for request in only(served).requests]
    assert limits == [whole, stream]


async def test_a_stream_feeds_its_input(http: httpx2.AsyncClient, box: str) -> None:
    body = {"argv": ["cat"], "stdin": base64.b64encode(b"in").decode()}
    answer = await http.post(f"{box}/exec/stream", json=body)
    frames = [json.loads(line) for line in answer.text.splitlines()]
    assert base64.b64decode(frames[0]["data"]) == b"in"


async def test_leaving_a_call_cancels_it(
    served: Served, http: httpx2.AsyncClient, box: str
) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        await http.post(f"{box}/exec", json={"argv": ["sleep"]}, timeout=0.2)
    await until(lambda: only(served).cancelled == 1)


@pytest.mark.parametrize("command", ["sleep", "flood"])
async def test_leaving_a_stream_kills_its_command(
    served: Served, http: httpx2.AsyncClient, box: str, command: str
) -> None:
    async with http.stream("POST", f"{box}/exec/stream", json={"argv": [command]}) as answer:
        async for _line in answer.aiter_lines():
            break
    await until(lambda: only(served).signals == [signal.SIGKILL])


async def test_a_natural_end_kills_nothing(
    served: Served, http: httpx2.AsyncClient, box: str
) -> None:
    await http.post(f"{box}/exec/stream", json={"argv": ["echo", "a"]})
    assert only(served).signals == []
