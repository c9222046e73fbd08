"""Resolve, check, dial: which addresses are never dialled, and whom TLS believes."""

import asyncio
import socket
from pathlib import Path

import pytest

from egress_world import HOST, TestAuthority, TestUpstream, World, grant, preamble, world
from handiwork.model.policy import AllowRule, Match

ANY = grant(AllowRule(id="all", match=Match(hosts=("*",), schemes=("https", "http"))))

REFUSED = {
    "loopback": ("127.0.0.1",),
    "other loopback": ("127.8.9.1",),
    "unspecified": ("0.0.0.0",),
    "private 10": ("10.1.2.3",),
    "private 172": ("172.20.0.1",),
    "private 192": ("192.168.1.1",),
    "carrier": ("100.64.0.1",),
    "metadata": ("169.254.169.254",),
    "azure": ("168.63.129.16",),
    "alibaba": ("100.100.100.200",),
    "multicast": ("224.0.0.1",),
    "broadcast": ("255.255.255.255",),
    "documentation": ("203.0.113.9",),
    "v6 loopback": ("::1",),
    "v6 private": ("fd00::1",),
    "v6 metadata": ("fd00:ec2::254",),
    "v6 link-local": ("fe80::1",),
    "mapped": ("::ffff:127.0.0.1",),
    "mapped private": ("::ffff:10.0.0.1",),
    "NAT64": ("64:ff9b::7f00:1",),
    "6to4": ("2002:7f00:1::",),
    "public first, private behind": ("93.184.216.34", "10.0.0.1"),
    "private first, public behind": ("127.0.0.1", "93.184.216.34"),
}


async def test_no_name_leads_to_an_address_of_the_deny_set(tmp_path: Path):
    hosts = {f"n{number}.example.org": found for number, found in enumerate(REFUSED.values())}
    async with world(tmp_path, hosts=hosts) as here:
        client = await here.connect(await here.open(ANY))
        for host, why in zip(hosts, REFUSED, strict=True):
            for scheme in ("https", "http"):
                status, headers, body = await client.request(f"{scheme}://{host}/", host=host)
                assert (status, headers["x-handiwork-rule"]) == (403, "address-guard"), why
                assert host.encode() in body
        assert len(await here.records(46, allowed=False)) == 46


async def test_the_hosts_own_addresses_are_refused(tmp_path: Path):
    hosts = {"own.example.org": ("93.184.216.34",)}
    async with world(tmp_path, hosts=hosts, own_addresses=("93.184.216.34",)) as here:
        client = await here.connect(await here.open(ANY))
        status, _, body = await client.request("https://own.example.org/", host="own.example.org")
        assert status == 403
        assert b"own address" in body


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "0x7f.1",
        "2130706433",
        "017700000001",
        "127.1",
        "localhost",
    ],
)
async def test_addresses_written_as_hosts_are_refused(tmp_path: Path, host: str):
    async with world(tmp_path) as here:
        client = await here.connect(await here.open(ANY))
        status, _, _ = await client.request(f"http://{host}/", host=host)
        assert status in (400, 403)


async def test_a_service_may_be_private_and_only_it(tmp_path: Path):
    async with world(tmp_path, hosts={"other.example.org": ("127.0.0.1",)}) as here:
        all_of_it = AllowRule(id="all", match=Match(hosts=("*",)))
        client = await here.connect(await here.open(grant(here.service(), all_of_it)))
        assert (await client.request(f"https://{HOST}/"))[0] == 200
        other = "other.example.org"
        assert (await client.request(f"https://{other}/", host=other))[0] == 403


async def test_the_address_the_guest_dialled_does_not_matter(tmp_path: Path):
    async with world(tmp_path) as here:
        way = await here.open(grant(here.service()))
        for address in ("6.6.6.6", "127.0.0.1", "169.254.169.254", "2001:db8::1"):
            client = await here.tls(way, address=address)
            assert (await client.request("/"))[0] == 200
        assert {r.address for r in await here.records(4, allowed=True)} == {"127.0.0.1"}


async def other_upstream(here: World, **leaf: object) -> TestUpstream:
    return await here.listen(TestUpstream(), here.authority.server(HOST, **leaf))


@pytest.mark.parametrize("fault", ["unknown root", "other name", "expired", "no anchor", "clear"])
async def test_an_upstream_that_cannot_prove_itself_is_a_bad_gateway(tmp_path: Path, fault: str):
    async with world(tmp_path, connect_seconds=2.0) as here:
        upstream = here.upstream
        if fault == "unknown root":
            (tmp_path / "other").mkdir()
            context = TestAuthority(tmp_path / "other").server(HOST)
            upstream = await here.listen(TestUpstream(), context)
        elif fault == "other name":
            upstream = await here.listen(TestUpstream(), here.authority.server("x.example.com"))
        elif fault == "expired":
            upstream = await here.listen(TestUpstream(), here.authority.server(HOST, expired=True))
        elif fault == "clear":
            upstream = await here.listen(TestUpstream(), None)
        service = here.service(upstream=upstream, anchor=fault != "no anchor")
        client = await here.tls(await here.open(grant(service)))
        status, headers, _ = await client.request("/")
        assert status == (504 if fault == "clear" else 502)
        assert HOST in headers["x-handiwork-error"]
        assert upstream.seen == []


async def test_clear_http_reaches_a_service_that_speaks_it(tmp_path: Path):
    async with world(tmp_path) as here:
        upstream = await here.listen(TestUpstream(), None)
        way = await here.open(grant(here.service(upstream=upstream, schemes=("http",))))
        client, status = await here.captured(way, port=80)
        assert status == 0
        assert (await client.request("/"))[0] == 200
        assert (await client.request("/", host="evil.example.com"))[0] == 403
        assert (await client.request("/", host=f"{HOST}:8080"))[0] == 421


async def test_an_upstream_that_does_not_answer_the_dial_is_a_timeout(tmp_path: Path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        async with world(tmp_path, connect_seconds=0.3) as here:
            upstream = TestUpstream(port=silent.getsockname()[1])
            client = await here.tls(await here.open(grant(here.service(upstream=upstream))))
            status, _, body = await client.request("/")
            assert status == 504
            assert b"in time" in body


async def test_a_refused_dial_is_a_bad_gateway(tmp_path: Path):
    async with world(tmp_path) as here:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            upstream = TestUpstream(port=free.getsockname()[1])
        client = await here.tls(await here.open(grant(here.service(upstream=upstream))))
        assert (await client.request("/"))[0] == 502


async def test_a_name_without_address_is_a_bad_gateway(tmp_path: Path):
    async with world(tmp_path) as here:
        client = await here.tls(await here.open(ANY), name="nowhere.invalid")
        assert (await client.request("/", host="nowhere.invalid"))[0] in (502, 504)


async def test_a_parent_proxy_is_asked_for_a_tunnel(tmp_path: Path):
    asked: list[bytes] = []

    async def parent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(parent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, world(tmp_path, parent=f"127.0.0.1:{port}") as here:
        client = await here.connect(await here.open(ANY))
        status, headers, _ = await client.request(
            "https://www.example.org/", host="www.example.org"
        )
        assert (status, "parent proxy" in headers["x-handiwork-error"]) == (502, True)
        assert asked[0].startswith(b"CONNECT www.example.org:443 HTTP/1.1\r\n")
        assert (await client.request("https://10.0.0.1/", host="10.0.0.1"))[0] == 403
        assert len(asked) == 1


def question(name: str, kind: int = 1) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    raw = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\0"
    raw += kind.to_bytes(2, "big") + b"\x00\x01"
    return len(raw).to_bytes(2, "big") + raw


async def test_names_are_answered_by_the_binding(tmp_path: Path):
    async with world(tmp_path) as here:
        way = await here.open(grant(here.service()))
        client, status = await here.captured(way, kind=2, address="10.0.0.2", port=53)
        assert status == 0

        async def ask(name: str, kind: int = 1) -> bytes:
            await client.send(question(name, kind))
            length = int.from_bytes(await client.reader.readexactly(2), "big")
            return await client.reader.readexactly(length)

        reply = await ask(HOST)
        assert reply[3] & 15 == 0
        address = socket.inet_ntoa(reply[-4:])
        assert address.startswith("198.")
        assert (await ask("Evil.example.com"))[3] & 15 == 3
        assert (await ask("evil.example.com", 16))[3] & 15 == 3
        served = await here.tls(way, address=address)
        assert (await served.request("/"))[0] == 200
        assert (await here.captured(way, address=address, port=22))[1] != 0
        (record,) = await here.records(1, kind="dns", method="A")
        assert (record.host, record.allowed) == ("evil.example.com", False)


async def test_questions_are_limited(tmp_path: Path):
    async with world(tmp_path, dns_burst=5.0, dns_per_second=0.001) as here:
        way = await here.open(grant(here.service()))
        client, _ = await here.captured(way, kind=2, address="10.0.0.2", port=53)
        await client.send(question(HOST) * 100)
        got = b""
        try:
            async with asyncio.timeout(0.5):
                while True:
                    got += await client.reader.readexactly(1)
        except TimeoutError:
            pass
        assert got.count(b"\x12\x34") == 5


async def test_hostile_dns_bytes_end_only_their_connection(tmp_path: Path):
    async with world(tmp_path) as here:
        way = await here.open(grant(here.service()))
        for raw in (b"\0\0", b"\0\x05abcde", b"\xff\xff" + b"x" * 65535, b"\0\x0c" + b"\xff" * 12):
            client, _ = await here.captured(way, kind=2, address="10.0.0.2", port=53)
            await client.send(raw * 3)
        assert (await (await here.tls(way)).request("/"))[0] == 200
        assert preamble(2, "10.0.0.2", 53)[4] == 2
