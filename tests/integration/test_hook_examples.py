"""Each example runs, in the real process, on real requests."""

import asyncio
import json
from pathlib import Path

import pytest

from egress_world import HOST, answer
from hook_world import EXAMPLES, HookWorld, hook_world

PEOPLE = b'[{"name": "Ada", "email": "ada@example.org", "at": [{"email": "x"}]}]'
JSON = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(PEOPLE)
    + PEOPLE
)


@pytest.fixture
async def here(tmp_path: Path):
    files = {path.stem: path.read_text() for path in EXAMPLES.glob("*.py")}
    assert len(files) == 5
    async with hook_world(tmp_path, files) as made:
        yield made


async def test_every_example_is_in_force(here: HookWorld) -> None:
    hooks = await here.catalog()
    assert len(hooks) == 5
    assert all(one.stages and not one.error for one in hooks)


async def test_add_header(here: HookWorld) -> None:
    client = await here.tls(await here.open(here.hooking("add_header")))
    assert (await client.request("/", extra="x-requested-for: root\r\n"))[0] == 200
    assert here.upstream.seen[-1].values("x-requested-for") == ["sbx_0000000001"]


async def test_rewrite_path(here: HookWorld) -> None:
    client = await here.tls(await here.open(here.hooking("rewrite_path")))
    assert (await client.request("/v1/things?a=b"))[0] == 200
    assert here.upstream.seen[-1].target == "/v2/things?a=b"


async def test_redact_field(here: HookWorld) -> None:
    here.upstream.respond = answer(JSON)
    client = await here.tls(await here.open(here.hooking("redact_field", body_bytes=4096)))
    status, headers, body = await client.request("/people")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert b"ada@example.org" not in body
    shown = json.loads(body)
    assert shown == [{"name": "Ada", "email": "…", "at": [{"email": "…"}]}]
    plain = await here.tls(await here.open(here.hooking("redact_field")))
    status, headers, body = await plain.request("/people")
    assert (status, headers["x-handiwork-rule"]) == (403, "hook:redact_field")
    assert b"ada@example.org" not in body


async def test_log_to_file(here: HookWorld) -> None:
    client = await here.tls(await here.open(here.hooking("log_to_file")))
    for path in ("/a", "/b"):
        assert (await client.request(path))[0] == 200
    lines = (here.state / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["url"] for line in lines] == [
        f"https://{HOST}/a",
        f"https://{HOST}/b",
    ]
    assert json.loads(lines[0])["status"] == 200


async def test_answer_from_cache(here: HookWorld) -> None:
    here.upstream.respond = answer(JSON)
    way = await here.open(here.hooking("answer_from_cache", body_bytes=4096))
    client = await here.tls(way)
    first = await client.request("/people")
    asked = len(here.upstream.seen)
    second = await client.request("/people")
    assert first[2] == second[2] == PEOPLE
    assert (second[1]["x-from-cache"], len(here.upstream.seen)) == ("yes", asked)
    other = await client.request("/people?page=2")
    assert "x-from-cache" not in other[1]
    records = await here.records(3, status=200)
    assert [record.address for record in records] == ["127.0.0.1", "", "127.0.0.1"]
    assert records[1].reason == "answered by the hook answer_from_cache"


async def test_examples_side_by_side_on_one_request(here: HookWorld) -> None:
    names = ("add_header", "rewrite_path", "log_to_file")
    way = await here.open(here.hooking(*names))

    async def ask() -> int:
        return (await (await here.tls(way)).request("/v1/x"))[0]

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask()) for _ in range(8)]
    assert [one.result() for one in asked] == [200] * 8
    assert {seen.target for seen in here.upstream.seen} == {"/v2/x"}
    assert len((here.state / "answers.jsonl").read_text().splitlines()) == 8
