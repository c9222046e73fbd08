"""Hooks on real requests: what they may do, and that whatever goes wrong refuses and says why."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from egress_world import HOST, SECRET, answer, grant
from handiwork.model.egress import EgressGrant
from handiwork.model.injection import HeaderInjection
from handiwork.model.policy import AllowRule, DenyRule, Match
from hook_files import HEAD, HOOKS, OTHER, REQUEST, ask, refused
from hook_world import HookWorld, hook_world

BEARER = (HeaderInjection(header="authorization", value="Bearer ${secret:key}"),)


@pytest.fixture
async def here(tmp_path: Path):
    async with hook_world(tmp_path, HOOKS) as made:
        yield made


# What a hook may do.


async def test_hooks_of_a_rule_run_in_order(here: HookWorld) -> None:
    assert (await ask(here, here.hooking("plain", "second")))[0] == 200
    assert here.upstream.seen[-1].values("x-hook") == ["ps"]
    assert (await ask(here, here.hooking("second", "plain")))[0] == 200
    assert here.upstream.seen[-1].values("x-hook") == ["sp"]


async def test_a_header_of_a_hook_stays_though_the_guest_calls_it_hop_by_hop(
    here: HookWorld,
) -> None:
    asked = "connection: x-hook\r\nx-hook: guest\r\n"
    assert (await ask(here, here.hooking("plain"), extra=asked))[0] == 200
    assert here.upstream.seen[-1].values("x-hook") == ["p"]


async def test_a_hook_denies_with_its_reason(here: HookWorld) -> None:
    assert "not on a Sunday" in await refused(here, "denies")
    record = (await here.records(1, allowed=False))[0]
    assert (record.rules[-1], record.reason) == ("hook:denies", "not on a Sunday")


async def test_a_hook_answers_and_nothing_is_sent(here: HookWorld) -> None:
    status, headers, body = await ask(here, here.hooking("answers"))
    assert (status, headers["x-from"], body) == (418, "hook", b"tea")
    assert not here.upstream.seen


async def test_what_a_hook_answers_shows_no_secret_that_it_was_given(here: HookWorld) -> None:
    secrets = (await here.sealed(),)
    granted = here.hooking("answers", secrets=secrets, told=("key",))
    status, _, body = await ask(here, granted)
    assert (status, body) == (418, b"*" * len(SECRET))


async def test_a_body_is_read_and_changed_and_framed_anew(here: HookWorld) -> None:
    granted = here.hooking("body", body_bytes=100)
    client = await here.tls(await here.open(granted))
    for extra, raw in [
        ("content-length: 3\r\n", b"abc"),
        ("transfer-encoding: chunked\r\n", b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"),
    ]:
        await client.send(f"POST /p HTTP/1.1\r\nhost: {HOST}\r\n{extra}\r\n".encode() + raw)
        assert (await client.response())[0] == 200
        seen = here.upstream.seen[-1]
        assert (seen.body, seen.values("content-length")) == (b"ABC!", ["4"])
        assert not seen.values("transfer-encoding")


async def test_a_guest_that_waits_for_leave_to_send_gets_it(here: HookWorld) -> None:
    client = await here.tls(await here.open(here.hooking("body", body_bytes=100)))
    head = f"POST / HTTP/1.1\r\nhost: {HOST}\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n"
    await client.send(head.encode())
    assert (await client.response())[0] == 100
    await client.send(b"x")
    assert (await client.response())[0] == 200
    assert here.upstream.seen[-1].body == b"X!"
    assert not here.upstream.seen[-1].values("expect")


async def test_a_body_over_the_limit_is_refused(here: HookWorld) -> None:
    granted = here.hooking("body", body_bytes=100)
    status, headers, body = await ask(here, granted, method="POST", body=b"x" * 101)
    assert (status, headers["x-handiwork-rule"]) == (403, "hook:body")
    assert b"over the 100 bytes" in body
    assert not here.upstream.seen
    assert (await ask(here, granted, method="POST", body=b"x" * 99))[0] == 200


async def test_a_body_is_held_until_it_is_sent_and_not_for_as_long_as_its_answer(
    here: HookWorld,
) -> None:
    async def respond(seen, reader, writer) -> None:
        await reader.readexactly(2)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
        await writer.drain()
        await asyncio.sleep(30)

    here.upstream.respond = respond
    way = await here.open(here.hooking("body", body_bytes=100))
    for _ in range(20):  # more than may be held at once
        client = await here.tls(way)
        head = f"POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 1\r\n\r\n"
        await client.send(head.encode())
        await client.send(b"a")
        assert b" 200 " in await client.reader.readuntil(b"\r\n\r\n")


async def test_without_body_bytes_bodies_stream_by_unseen(here: HookWorld) -> None:
    large = os.urandom(1 << 20)
    status, _, body = await ask(here, here.hooking("blind"), method="POST", body=large)
    assert status == 200
    assert json.loads(body)["body"].encode("latin-1") == large
    assert here.upstream.seen[-1].values("x-body") == ["None"]


async def test_an_answer_is_changed_head_and_body(here: HookWorld) -> None:
    status, headers, body = await ask(here, here.hooking("status"))
    assert (status, headers["x-hook"]) == (203, "r")
    assert json.loads(body)["method"] == "GET"
    for size in (0, 4096):
        status, headers, body = await ask(here, here.hooking("replaces", body_bytes=size))
        assert (status, headers["content-length"], body) == (200, "8", b"replaced")
    assert (await ask(here, here.hooking("status", body_bytes=4096), method="HEAD"))[0] == 203


async def test_answers_of_every_framing_pass_a_hook(here: HookWorld) -> None:
    raws = [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", False),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", True),
    ]
    for size in (0, 4096):
        for raw, close in raws:
            here.upstream.respond = answer(raw, close=close)
            got = await ask(here, here.hooking("status", body_bytes=size))
            assert (got[0], got[1]["x-hook"], got[2]) == (203, "r", b"abc"), (size, raw)
    here.upstream.respond = answer(b"HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n")
    status, headers, _ = await ask(here, here.hooking("order2", body_bytes=9))
    assert (status, headers["x-order"]) == (204, "p")


async def test_a_long_stream_passes_a_hook_that_looks_at_heads(here: HookWorld) -> None:
    async def respond(seen, reader, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(3):
            writer.write(b"2\r\n%d\n\r\n" % number)
            await writer.drain()
            await told.wait()
            told.clear()
        writer.write(b"0\r\n\r\n")

    told = asyncio.Event()
    here.upstream.respond = respond
    client = await here.tls(await here.open(here.hooking("status")))
    await client.send(f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert b" 203 " in head.splitlines()[0]
    for number in range(3):  # each piece comes before the next one is sent
        assert await client.reader.readexactly(7) == b"2\r\n%d\n\r\n" % number
        told.set()
    assert await client.reader.readexactly(5) == b"0\r\n\r\n"


async def test_a_large_answer_streams_by_a_hook_that_looks_at_heads(here: HookWorld) -> None:
    large = os.urandom(5 << 20)
    here.upstream.respond = answer(
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(large) + large
    )
    client = await here.tls(await here.open(here.hooking("status")))
    for _ in range(2):
        status, _, body = await client.request("/")
        assert (status, body == large) == (203, True)


async def test_an_answer_over_the_limit_is_not_shown(here: HookWorld) -> None:
    here.upstream.respond = answer(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n" + b"s" * 500)
    status, headers, body = await ask(here, here.hooking("status", body_bytes=100))
    assert (status, headers["x-handiwork-rule"]) == (403, "hook:status")
    assert b"ss" not in body


async def test_answers_pass_hooks_in_the_other_order(here: HookWorld) -> None:
    client = await here.tls(await here.open(here.hooking("order", "order2")))
    await client.send(f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
    head = (await client.reader.readuntil(b"\r\n\r\n")).decode().splitlines()
    assert [line for line in head if line.startswith("x-order")] == ["x-order: p", "x-order: o"]


async def test_a_refused_answer_is_on_record_as_sent(here: HookWorld) -> None:
    status, headers, _ = await ask(here, here.hooking("refuses"))
    assert (status, headers["x-handiwork-rule"]) == (403, "hook:refuses")
    record = (await here.records(1, reason="not this answer"))[0]
    assert record.allowed
    assert record.address == "127.0.0.1"


# What it cannot do.


async def test_a_request_that_a_hook_moved_is_judged_again(here: HookWorld) -> None:
    assert "no rule of session:test" in (await ask(here, here.hooking("moves")))[2].decode()
    assert not here.upstream.seen
    both = here.hooking("moves", hosts=(HOST, OTHER))
    assert (await ask(here, both))[0] == 200
    assert here.upstream.seen[-1].values("host") == [OTHER]


@pytest.mark.parametrize("name", ["strays", "private"])
async def test_no_hook_leads_where_no_rule_does(here: HookWorld, name: str) -> None:
    status, headers, _ = await ask(here, here.hooking(name))
    assert (status, headers["x-handiwork-rule"]) == (403, "session:test/default")
    assert not here.upstream.seen


async def test_no_hook_leads_past_a_rule_on_paths(here: HookWorld) -> None:
    granted = here.hooking("digs")
    deny = DenyRule(id="no-admin", match=Match(hosts=(HOST,), paths=("/admin/*",)))
    policy = granted.layers[1].policy
    layers = (
        granted.layers[0],
        type(granted.layers[1])(
            scope="session", policy=type(policy)(name="test", rules=(deny, *policy.rules))
        ),
    )
    status, headers, _ = await ask(here, EgressGrant(layers=layers))
    assert (status, headers["x-handiwork-rule"]) == (403, "session:test/no-admin")
    assert (await ask(here, here.hooking("digs")))[0] == 200  # the hook does it, the rule stops it
    assert here.upstream.seen[-1].target == "/admin/"


async def test_a_hook_of_the_place_moved_to_runs_too(here: HookWorld) -> None:
    first, then = here.hooking("moves"), here.hooking("denies", hosts=(OTHER,))
    rules = (*first.layers[1].policy.rules, *then.layers[1].policy.rules)
    renamed = tuple(
        type(rule)(id=f"r{at}", match=rule.match, hooks=rule.hooks) for at, rule in enumerate(rules)
    )
    policy = type(first.layers[1].policy)(name="test", rules=renamed)
    layers = (first.layers[0], type(first.layers[1])(scope="session", policy=policy))
    status, headers, _ = await ask(here, EgressGrant(layers=layers))
    assert (status, headers["x-handiwork-rule"]) == (403, "hook:denies")
    assert not here.upstream.seen


@pytest.mark.parametrize("name", ["smuggles", "splits", "queries"])
async def test_no_hook_writes_a_second_line_or_request(here: HookWorld, name: str) -> None:
    status, _, _ = await ask(here, here.hooking(name))
    seen = here.upstream.seen
    assert status in (400, 403) or all(
        not one.values("x-evil") and not one.values("x") and " " not in one.target for one in seen
    )
    assert len(seen) <= 1


async def test_a_hooks_framing_fields_are_not_sent(here: HookWorld) -> None:
    assert (await ask(here, here.hooking("frames"), method="POST", body=b"abcd"))[0] == 200
    seen = here.upstream.seen[-1]
    assert (seen.values("content-length"), seen.values("host")) == (["4"], [HOST])
    assert not seen.values("transfer-encoding")


async def test_a_hook_never_sees_what_is_injected(here: HookWorld) -> None:
    secrets = (await here.sealed(),)
    shown = {}
    for name, size in (("tells", 0), ("shows", 0), ("shows", 4096)):
        granted = here.hooking(name, secrets=secrets, inject=BEARER, body_bytes=size)
        status, headers, _ = await ask(here, granted)
        assert status == 200
        sent = here.upstream.seen[-1]
        assert sent.values("authorization") == [f"Bearer {SECRET}"]  # it was there to be seen
        shown[name, size] = sent.values("x-saw")[0] if name == "tells" else headers["x-seen"]
    assert "authorization" not in shown["tells", 0]
    assert shown["tells", 0].endswith("{}")
    assert "***" in shown["shows", 4096]  # the upstream echoed it: the hook saw the mask
    assert all(SECRET not in text for text in shown.values())


async def test_a_hook_reads_the_secrets_of_its_rule_and_they_go_to_their_hosts_alone(
    here: HookWorld,
) -> None:
    secrets = (await here.sealed(),)
    granted = here.hooking("tells", secrets=secrets, told=("key",))
    status, _, body = await ask(here, granted)
    assert status == 200
    assert SECRET in here.upstream.seen[-1].values("x-saw")[0]
    assert SECRET.encode() not in body  # it came back, masked
    assert b"*" * len(SECRET) in body
    elsewhere = (await here.sealed(hosts=("other.test",)),)
    reason = await refused(here, "tells", secrets=elsewhere, told=("key",))
    assert f"the secret key is not for {HOST}" in reason
    moved = here.hooking("moves", hosts=(HOST, OTHER), secrets=secrets, told=("key",))
    count = len(here.upstream.seen)
    status, _, body = await ask(here, moved)
    assert (status, len(here.upstream.seen)) == (403, count)
    assert f"the secret key is not for {OTHER}".encode() in body


async def test_what_a_hook_makes_of_an_answer_is_masked(here: HookWorld) -> None:
    secrets = (await here.sealed(),)
    for size in (0, 4096):
        granted = here.hooking("leaks", secrets=secrets, told=("key",), body_bytes=size)
        status, headers, body = await ask(here, granted)
        assert (status, headers["x-leak"], body) == (
            200,
            "*" * len(SECRET),
            b"*" * len(SECRET),
        )


async def test_requests_of_hooks_themselves_pass_no_hook(tmp_path: Path) -> None:
    call = (
        "    r = await ctx.http.get(f'https://{request.host}' + request.query)\n"
        "    return Answer(status=r.status, body=r.body + r.headers.get('x-handiwork-rule').encode())"
    )
    files = {"calls": HEAD + "async def on_request(ctx, request):\n" + call}
    for allowed in (True, False):
        directory = tmp_path / str(allowed)
        directory.mkdir()
        async with hook_world(directory, files, reach=grant()) as here:
            reach = here.hooking("calls") if not allowed else grant(here.service())
            await here.registry.update("hooks", reach)
            status, _, body = await ask(here, here.hooking("calls"), "/?/inner")
            assert (status, b"hook:calls" in body) == ((200, False) if allowed else (403, True))
            assert [seen.target for seen in here.upstream.seen] == (["/inner"] if allowed else [])
            record = (await here.records(1, binding="hooks"))[0]
            assert record.allowed is allowed


async def test_hooks_reach_nothing_without_a_policy_of_their_own(tmp_path: Path) -> None:
    body = "r = await ctx.http.get('https://' + request.host + '/')\n    return Answer(status=r.status)"
    async with hook_world(tmp_path, {"calls": REQUEST + body}, reach=grant()) as here:
        assert (await ask(here, here.hooking("calls")))[0] == 403
        assert not here.upstream.seen


async def test_a_websocket_is_not_opened_past_a_hook_that_reads_answers(here: HookWorld) -> None:
    asked = "connection: upgrade\r\nupgrade: websocket\r\n"
    status, headers, _ = await ask(here, here.hooking("shows", body_bytes=9), extra=asked)
    assert (status, headers["x-handiwork-rule"]) == (403, "hook:shows")
    here.upstream.respond = answer(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    )
    assert (await ask(here, here.hooking("plain"), extra=asked))[0] == 101
    assert here.upstream.seen[-1].values("x-hook") == ["p"]


async def test_the_policy_of_a_rule_that_allows_runs_no_hook(here: HookWorld) -> None:
    rule = AllowRule(id="a", match=Match(hosts=(HOST,)))
    tenant = here.hooking("denies").layers[0]
    plain = type(tenant)(scope="session", policy=type(tenant.policy)(name="test", rules=(rule,)))
    assert (await ask(here, EgressGrant(layers=(tenant, plain))))[0] == 200
