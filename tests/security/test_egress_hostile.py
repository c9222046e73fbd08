"""A hostile guest behind an exit, a hostile upstream, a proxy that hangs: each with its control."""

import asyncio
import signal
import socket
import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from egress_world import HOST, SECRET, Respond, Seen, World, answer, echo, grant, read_body, world
from handiwork.model.errors import SandboxUnavailableError
from handiwork.model.injection import HeaderInjection

GET = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n".encode()
POST = f"POST / HTTP/1.1\r\nHost: {HOST}\r\n".encode()
UPGRADE = b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"
HIDDEN = b"0\r\n\r\nDELETE /admin HTTP/1.1\r\nHost: evil.example.com\r\n\r\n"
MIB = 1 << 20


@pytest.fixture
async def here(tmp_path: Path):
    async with world(tmp_path) as made:
        yield made


@pytest.fixture
async def client(here: World):
    return await here.tls(await here.open(grant(here.service(paths=("/",)))))


def chunked(body: bytes) -> bytes:
    return POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


async def arrived(here: World) -> None:
    """Wait until the upstream has seen a request."""
    for _ in range(500):
        if here.upstream.seen:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nothing came")


async def test_a_pipelined_body_cannot_hide_a_request(here: World, client):
    await client.send(GET + b"\r\n" + chunked(HIDDEN) + chunked(b"plain"))
    for _ in range(3):
        assert (await client.response())[0] == 200
    assert [(seen.method, seen.target) for seen in here.upstream.seen] == [
        ("GET", "/"),
        ("POST", "/"),
        ("POST", "/"),
    ]
    assert [seen.body for seen in here.upstream.seen] == [b"", HIDDEN, b"plain"]


async def test_an_upstream_does_see_the_hidden_request_when_its_body_is_not_framed(here: World):
    """The control of the test above."""
    context = ssl.create_default_context(cadata=here.authority.pem)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", here.upstream.port, ssl=context, server_hostname=HOST
    )
    writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n" + HIDDEN)
    async with asyncio.timeout(5):
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"}")
    writer.close()
    assert [seen.target for seen in here.upstream.seen] == ["/", "/admin"]


@pytest.mark.parametrize("size", [0, 1, 70_000])
async def test_pipelined_bodies_arrive_as_they_are(here: World, client, size: int):
    plain = POST + b"Content-Length: %d\r\n\r\n" % size + b"x" * size
    await client.send(GET + b"\r\n" + plain + GET + b"\r\n")
    for _ in range(3):
        assert (await client.response())[0] == 200
    assert [len(seen.body) for seen in here.upstream.seen] == [0, size, 0]


async def test_a_pipelined_upgrade_is_answered_in_its_turn_and_counted_once(tmp_path: Path):
    async def slow(seen: Seen, reader, writer) -> None:
        await asyncio.sleep(0.1)
        await read_body(seen, reader)
        await echo(seen, writer)

    async with world(tmp_path, max_requests=1) as here:
        here.upstream.respond = slow
        way = await here.open(grant(here.service()))
        for _ in range(3):
            client = await here.tls(way)
            await client.send(GET + b"\r\n" + GET + UPGRADE + GET + b"\r\n")
            assert (await client.response())[0] in (200, 503)
            await client.close()
        here.upstream.respond = lambda *_: asyncio.sleep(30)
        busy = await here.tls(way)
        await busy.send(GET + b"\r\n")
        await asyncio.sleep(0.2)
        assert (await (await here.tls(way)).request("/"))[0] == 503


async def test_a_pipelined_upgrade_is_not_answered_before_its_turn(here: World, client):
    gate = asyncio.Event()

    async def slow(seen: Seen, reader, writer) -> None:
        await gate.wait()
        await echo(seen, writer)

    here.upstream.respond = slow
    await client.send(GET + b"\r\n" + GET + UPGRADE + GET + b"\r\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.reader.read(1), 0.2)
    gate.set()
    for _ in range(3):
        assert (await client.response())[0] == 200
    assert all(seen.values("upgrade") == [] for seen in here.upstream.seen)


async def test_trailers_without_end_are_ended(here: World, client):
    fine = POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: " + b"a" * 60_000
    await client.send(fine + b"\r\n\r\n")
    assert (await client.response())[0] == 200  # the control
    await client.send(fine)
    with suppress(ConnectionError):
        for _ in range(20):
            await client.send(b"a" * 65_536)
    assert (await client.response())[0] == 431
    assert await client.ended()


async def test_chunk_extensions_without_end_are_ended(here: World, client):
    await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n1;")
    with suppress(ConnectionError):
        for _ in range(20):
            await client.send(b"a" * 65_536)
    assert (await client.response())[0] == 431


@pytest.mark.parametrize("size", [60_000, 4 * MIB])
async def test_trailers_of_an_answer_without_end_are_cut(here: World, client, size: int):
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: "
    here.upstream.respond = answer(head + b"a" * size + b"\r\n\r\n")
    if size > MIB:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ValueError)):
            await client.request("/")
    else:
        assert (await client.request("/"))[2] == b"a"


@pytest.mark.parametrize("fields", [150, 50_000])
async def test_an_answer_of_many_fields_is_refused(here: World, client, fields: int):
    raw = b"HTTP/1.1 200 OK\r\n" + b"a:b\r\n" * fields + b"content-length: 0\r\n\r\n"
    here.upstream.respond = answer(raw)
    assert (await client.request("/"))[0] == (502 if fields > 200 else 200)


@pytest.mark.parametrize("count", [50, 5000])
async def test_answers_before_the_answer_have_an_end(here: World, client, count: int):
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * count
    here.upstream.respond = answer(early + b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    assert (await client.request("/"))[0] == (502 if count > 64 else 200)


def switching(gate: asyncio.Event) -> Respond:
    async def respond(seen: Seen, reader, writer) -> None:
        await gate.wait()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        )
        await writer.drain()
        await reader.read(1)

    return respond


@pytest.mark.parametrize("revoked", [False, True])
async def test_a_web_socket_does_not_open_after_its_revocation(here: World, revoked: bool):
    gate = asyncio.Event()
    here.upstream.respond = switching(gate)
    way = await here.open(grant(here.service()))
    client = await here.tls(way)
    await client.send(GET + UPGRADE)
    await arrived(here)
    if revoked:
        await here.registry.update(way.binding.id, grant())
    gate.set()
    assert (await client.response())[0] == (403 if revoked else 101)


@pytest.mark.parametrize("revoked", [False, True])
async def test_a_request_that_waits_for_its_connection_is_judged_again(here: World, revoked: bool):
    listener = socket.create_server(("127.0.0.1", 0))
    here.upstream.port = listener.getsockname()[1]
    way = await here.open(await here.injecting())
    client = await here.tls(way)
    await client.send(GET + b"\r\n")
    await asyncio.sleep(0.2)  # it is connected now, and waits for the handshake
    if revoked:
        await here.registry.update(way.binding.id, grant())
    secure = here.authority.server(HOST)
    here.servers.append(await asyncio.start_server(here.upstream.serve, sock=listener, ssl=secure))
    assert (await client.response())[0] == (403 if revoked else 200)
    sent = [value for seen in here.upstream.seen for value in seen.values("authorization")]
    assert sent == ([] if revoked else [f"Bearer {SECRET}"])


async def test_a_request_that_waits_sends_no_secret_that_was_withdrawn(here: World):
    """The control is the case above: with its grant unchanged it arrives with the secret."""
    listener = socket.create_server(("127.0.0.1", 0))
    here.upstream.port = listener.getsockname()[1]
    way = await here.open(await here.injecting())
    client = await here.tls(way)
    await client.send(GET + b"\r\n")
    await asyncio.sleep(0.2)  # it is connected now, and waits for the handshake
    await here.registry.update(way.binding.id, grant(here.service()))
    secure = here.authority.server(HOST)
    here.servers.append(await asyncio.start_server(here.upstream.serve, sock=listener, ssl=secure))
    assert (await client.response())[0] == 200
    (seen,) = here.upstream.seen
    assert seen.values("authorization") == []
    (record,) = await here.records(1)
    assert record.injected == ()


async def test_what_was_sent_is_on_record_as_sent(here: World, client):
    here.upstream.respond = lambda *_: asyncio.sleep(30)
    await client.send(POST + b"Content-Length: 1\r\n\r\na")
    await arrived(here)
    await client.send(b"\0 no request")
    assert (await client.response())[0] == 400
    (record,) = await here.records(1)
    assert (record.allowed, record.status, record.method) == (True, 400, "POST")


async def test_what_was_never_sent_is_on_record_as_refused(here: World, client):
    """The control of the test above."""
    await client.send(b"\0 no request")
    assert (await client.response())[0] == 400
    assert [record.allowed for record in await here.records(1)] == [False]


async def test_a_switch_that_names_no_protocol_is_a_bad_gateway(here: World, client):
    here.upstream.respond = answer(b"HTTP/1.1 101 Switching\r\n\r\n")
    await client.send(GET + UPGRADE)
    assert (await client.response())[0] == 502


async def test_fields_that_gateways_confuse_with_ours_are_dropped(here: World):
    inject = (HeaderInjection(header="x-api-key", value="${secret:key}"),)
    granted = grant(here.service(inject=inject), secrets=(await here.sealed(),))
    client = await here.tls(await here.open(granted))
    extra = (
        "X_Api_Key: mine\r\nx-api_key: mine\r\nTransfer_Encoding: chunked\r\n"
        "X-Original-URL: /admin\r\nX-HTTP-Method-Override: DELETE\r\nX_Other_Key: fine\r\n"
    )
    assert (await client.request("/", extra=extra))[0] == 200
    (seen,) = here.upstream.seen
    assert {name for name, _ in seen.headers} == {
        "host",
        "x_other_key",
        "accept-encoding",
        "x-api-key",
    }
    assert seen.values("x-api-key") == [SECRET]


async def test_an_upstream_cannot_speak_in_our_name(here: World, client):
    raw = b"HTTP/1.1 403 No\r\nx-handiwork-rule: a/b\r\nx-b: 1\r\ncontent-length: 0\r\n\r\n"
    here.upstream.respond = answer(raw)
    _, headers, _ = await client.request("/")
    assert headers == {"x-b": "1", "content-length": "0"}


async def test_a_proxy_that_hung_serves_no_old_grant_when_it_goes_on(here: World):
    way = await here.open(grant(here.service()))
    client = await here.tls(way)
    assert (await client.request("/"))[0] == 200
    process = here.processes[0]
    here.registry._reply_seconds = 0.3
    process.send_signal(signal.SIGSTOP)
    try:
        await client.send(GET + b"\r\n")
        with pytest.raises(SandboxUnavailableError):
            await here.registry.update(way.binding.id, grant())
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
    async with asyncio.timeout(5):
        assert await process.wait() == -signal.SIGKILL
    assert len(here.upstream.seen) == 1


async def test_the_proxy_takes_all_descriptors_that_it_may(here: World):
    await here.registry.ping()
    text = Path(f"/proc/{here.processes[0].pid}/limits").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("Max open files")]
    soft, hard = line.split()[3:5]
    assert soft == hard
