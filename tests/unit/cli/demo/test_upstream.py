"""The demo's HTTPS service, asked by a real TLS client that trusts its CA alone."""

import asyncio
import base64
import contextlib
import datetime
import json
import socket
import ssl

import pytest

from handiwork.cli.demo import upstream

NAMES = ("api.demo.test", "evil.demo.test")
KEY = "sk-demo-0123456789abcdef"


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


async def ask(
    world: upstream.Upstream, name: str, *heads: str, anchor: str | None = None
) -> list[dict[str, object]]:
    """Send each head over one connection and return the answers' bodies."""
    context = ssl.create_default_context(cadata=anchor or world.trust_anchor)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", world.port, ssl=context, server_hostname=name
    )
    try:
        answers = []
        for head in heads:
            writer.write(head.encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(answer.lower().split("content-length: ")[1].split("\r\n")[0])
            answers.append(json.loads(await reader.readexactly(length)))
        return answers
    finally:
        writer.close()
        await writer.wait_closed()


def head(name: str, path: str = "/v1/orders", **headers: str) -> str:
    lines = [f"GET {path} HTTP/1.1", f"Host: {name}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""])


async def test_it_knows_the_key_and_echoes_what_it_was_given() -> None:
    async with upstream.running(NAMES, KEY, now()) as world:
        right = {"authorization": f"Bearer {KEY}"}
        first, second, third = await ask(
            world,
            NAMES[0],
            head(NAMES[0], **right),
            head(NAMES[0], Authorization="Bearer wrong"),
            head(NAMES[0]),
        )
        assert (first["key_accepted"], first["you_sent"]) == (True, f"Bearer {KEY}")
        assert base64.b64decode(str(first["you_sent_base64"])) == KEY.encode()
        assert (second["key_accepted"], second["you_sent"]) == (False, "Bearer wrong")
        assert (third["key_accepted"], third["you_sent"]) == (False, "")
        assert world.keys_right == 1
        await ask(world, NAMES[1], head(NAMES[1], "/upload"))
        assert world.requests[-1] == f"GET /upload {NAMES[1]}"
        assert len(world.requests) == 4
        assert KEY not in repr(world)


async def test_its_certificate_is_for_its_names_and_of_its_ca() -> None:
    async with upstream.running(NAMES, KEY, now()) as world:
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(world, "other.demo.test", head("other.demo.test"))
        async with upstream.running(NAMES, KEY, now()) as other:
            with pytest.raises(ssl.SSLCertVerificationError):
                await ask(world, NAMES[0], head(NAMES[0]), anchor=other.trust_anchor)


async def test_broken_clients_do_not_disturb_it() -> None:
    async with upstream.running(NAMES, KEY, now()) as world:
        with socket.create_connection(("127.0.0.1", world.port)) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await ask(world, NAMES[0], head(NAMES[0], x="y" * upstream.HEAD_LIMIT_BYTES * 2))
        assert len(await ask(world, NAMES[0], head(NAMES[0]))) == 1
        port = world.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


async def test_a_client_that_stays_is_let_go() -> None:
    async with upstream.running(NAMES, KEY, now()) as world:
        context = ssl.create_default_context(cadata=world.trust_anchor)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", world.port, ssl=context, server_hostname=NAMES[0]
        )
        writer.write(head(NAMES[0]).encode())
        await reader.readuntil(b"\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()
