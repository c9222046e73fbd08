"""A small world for tests of the boundary: an authority, upstreams in TLS, a real proxy process."""

import asyncio
import json
import os
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from handiwork.egress.control import ProxySettings
from handiwork.egress.protocol import EgressSocket
from handiwork.egress.registry import EgressRegistry
from handiwork.model.audit import AuditRecord
from handiwork.model.egress import EgressBinding, EgressGrant
from handiwork.model.injection import HeaderInjection, Injection
from handiwork.model.policy import (
    Match,
    Policy,
    PolicyLayer,
    Rule,
    ServiceRule,
    ServiceTarget,
)
from handiwork.model.sealing import ENTROPY_BYTES as SEAL_BYTES
from handiwork.model.sealing import seal
from handiwork.model.secret import SealedSecret

SECRET = "sk-test-0123456789abcdefgh"
HOST = "api.example.org"


class TestAuthority:
    """A certificate authority of the test's own."""

    __test__ = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test root")])
        self._serials = 0
        root = self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.pem = _pem(root.sign(self._key, hashes.SHA256()))

    def _builder(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey, *, expired: bool = False
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        end = now - timedelta(hours=1) if expired else now + timedelta(days=1)
        return x509.CertificateBuilder(
            self._name,
            subject,
            public,
            x509.random_serial_number(),
            now - timedelta(days=2),
            end,
        )

    def server(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        """Return the server side of TLS for the names."""
        key = ec.generate_private_key(ec.SECP256R1())
        shown = [
            x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
            for name in names
        ]
        leaf = (
            self._builder(x509.Name([]), key.public_key(), expired=expired)
            .add_extension(x509.SubjectAlternativeName(shown), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._serials += 1
        path = self._directory / f"server-{self._serials}.pem"
        path.write_text(_pem(leaf) + _private_pem(key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@dataclass
class Seen:
    """A request as the upstream saw it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


Respond = Callable[[Seen, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class TestUpstream:
    """An HTTP server that remembers what it saw; `respond` may be replaced."""

    __test__ = False

    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    respond: Respond | None = None
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def drop(self) -> None:
        """Cut what is left of every connection, so that none outlives the loop."""
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                seen = _parse(head)
                self.seen.append(seen)
                if self.respond is not None:
                    await self.respond(seen, reader, writer)
                else:
                    await read_body(seen, reader)
                    await echo(seen, writer)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


def _parse(head: bytes) -> Seen:
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    pairs = [line.partition(":") for line in lines]
    return Seen(method, target, [(name, value.strip()) for name, _, value in pairs])


async def read_body(seen: Seen, reader: asyncio.StreamReader) -> None:
    if seen.values("transfer-encoding"):
        while size := int(await reader.readline(), 16):
            seen.body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        seen.body = await reader.readexactly(int((seen.values("content-length") or ["0"])[0]))


async def echo(seen: Seen, writer: asyncio.StreamWriter) -> None:
    shown = {"method": seen.method, "target": seen.target, "headers": seen.headers}
    payload = json.dumps({**shown, "body": seen.body.decode("latin-1")}).encode()
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(payload) + payload)
    await writer.drain()


def answer(raw: bytes, *, close: bool = False) -> Respond:
    """Return a responder that reads the request's body and writes the bytes as they are."""

    async def respond(
        seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await read_body(seen, reader)
        writer.write(raw)
        await writer.drain()
        if close:
            raise ConnectionResetError

    return respond


def layer(*rules: Rule, scope: str = "session", name: str = "test") -> PolicyLayer:
    return PolicyLayer(scope=scope, policy=Policy(name=name, rules=rules))  # type: ignore[arg-type]


def grant(*rules: Rule, secrets: tuple[SealedSecret, ...] = ()) -> EgressGrant:
    return EgressGrant(layers=(layer(*rules),), secrets=secrets)


@dataclass
class Client:
    """One connection of a guest, after preamble and handshake."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def request(
        self,
        target: str,
        *,
        method: str = "GET",
        host: str = HOST,
        extra: str = "",
        body: bytes = b"",
    ) -> tuple[int, dict[str, str], bytes]:
        length = f"content-length: {len(body)}\r\n" if body else ""
        head = f"{method} {target} HTTP/1.1\r\nhost: {host}\r\n{length}{extra}\r\n"
        await self.send(head.encode("latin-1") + body)
        return await self.response(head_only=method == "HEAD")

    async def response(self, *, head_only: bool = False) -> tuple[int, dict[str, str], bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        status = int(first.split(" ")[1])
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        if head_only or status in (101, 100, 204, 304):
            return status, headers, b""
        if "transfer-encoding" in headers:
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readline()
            await self.reader.readline()
            return status, headers, body
        return (
            status,
            headers,
            await self.reader.readexactly(int(headers.get("content-length", "0"))),
        )

    async def ended(self) -> bool:
        """Say whether the other side has closed, reading up what was left."""
        try:
            async with asyncio.timeout(5):
                while await self.reader.read(65536):
                    pass
        except (ConnectionError, ssl.SSLError):
            pass
        return True

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(2):
                await self.writer.wait_closed()


def preamble(kind: int, address: str, port: int) -> bytes:
    parsed = ip_address(address)
    raw = parsed.packed.ljust(16, b"\0")
    return struct.pack("!4sBBH16s", b"HWX1", kind, parsed.version, port, raw)


class World:
    """Everything a test of the boundary needs; made by `world`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = TestAuthority(directory)
        self.upstream = TestUpstream()
        self.processes: list[asyncio.subprocess.Process] = []
        self.clients: list[Client] = []
        self.servers: list[asyncio.Server] = []
        self.upstreams: list[TestUpstream] = []
        self.registry: EgressRegistry
        self._opened = 0

    def settings(self, **changed: object) -> ProxySettings:
        return ProxySettings(
            keys=str(self.directory / "keys"),
            audit=str(self.directory / "audit"),
            **changed,  # type: ignore[arg-type]
        )

    async def start_proxy(self, *arguments: str) -> asyncio.subprocess.Process:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "handiwork.egress",
            "--control",
            str(theirs.fileno()),
            *arguments,
            pass_fds=(theirs.fileno(),),
            cwd="/",
        )
        theirs.close()
        self.processes.append(process)
        self.registry.attach(ours, kill=process.kill)
        return process

    async def listen(
        self, upstream: TestUpstream, context: ssl.SSLContext | None, address: str = "127.0.0.1"
    ) -> TestUpstream:
        server = await asyncio.start_server(upstream.serve, address, 0, ssl=context)
        self.servers.append(server)
        self.upstreams.append(upstream)
        upstream.port = server.sockets[0].getsockname()[1]
        return upstream

    def service(
        self,
        *hosts: str,
        rule: str = "svc",
        inject: tuple[Injection, ...] = (),
        upstream: TestUpstream | None = None,
        anchor: bool = True,
        **match: object,
    ) -> ServiceRule:
        target = ServiceTarget(
            name="upstream",
            address="127.0.0.1",
            port=(upstream or self.upstream).port,
            trust_anchor=self.authority.pem if anchor else None,
        )
        return ServiceRule(
            id=rule,
            match=Match(hosts=hosts or (HOST,), **match),  # type: ignore[arg-type]
            service=target,
            inject=inject,
        )

    async def sealed(
        self, name: str = "key", *, hosts: tuple[str, ...] = (HOST,), value: str = SECRET
    ) -> SealedSecret:
        public = await self.registry.seal_key("default")
        return seal(
            public,
            tenant="default",
            name=name,
            version=1,
            hosts=hosts,
            value=value,
            entropy=os.urandom(SEAL_BYTES),
        )

    async def injecting(
        self, *, upstream: TestUpstream | None = None, **match: object
    ) -> EgressGrant:
        """Return a grant that sends the secret as a bearer."""
        inject = (HeaderInjection(header="authorization", value="Bearer ${secret:key}"),)
        service = self.service(inject=inject, upstream=upstream, **match)
        return grant(service, secrets=(await self.sealed(),))

    async def open(self, granted: EgressGrant, **identity: object) -> EgressSocket:
        self._opened += 1
        binding = EgressBinding(
            id=f"egb_{self._opened:010d}",
            kind="sandbox",
            sandbox_id=f"sbx_{self._opened:010d}",
            ca_id=f"ses_{self._opened:010d}",
        )
        return await self.registry.open(binding, granted)

    async def connect(self, way: EgressSocket) -> Client:
        client = Client(*await asyncio.open_unix_connection(way.path))
        self.clients.append(client)
        return client

    async def captured(
        self, way: EgressSocket, *, address: str = "198.51.100.7", port: int = 443, kind: int = 1
    ) -> tuple[Client, int]:
        client = await self.connect(way)
        await client.send(preamble(kind, address, port))
        return client, (await client.reader.readexactly(1))[0]

    async def tls(
        self,
        way: EgressSocket,
        *,
        name: str | None = HOST,
        port: int = 443,
        address: str = "198.51.100.7",
    ) -> Client:
        client, status = await self.captured(way, address=address, port=port)
        assert status == 0
        context = ssl.create_default_context(cadata=way.ca_certificate)
        context.check_hostname = name is not None
        await client.writer.start_tls(context, server_hostname=name)
        return client

    async def records(self, count: int, **facts: object) -> list[AuditRecord]:
        """Return the audit records with these facts, once there are as many."""
        from handiwork.egress.audit import read_segment

        found: list[AuditRecord] = []
        async with asyncio.timeout(5):
            while len(found) < count:
                await asyncio.sleep(0.05)
                found = []
                for path in sorted((self.directory / "audit").glob("*.jsonl")):
                    found += read_segment(path, 0)[0]
                found = [
                    record
                    for record in found
                    if all(getattr(record, name) == value for name, value in facts.items())
                ]
        return found


@asynccontextmanager
async def world(directory: Path, *arguments: str, **settings: object) -> AsyncIterator[World]:
    """Make a world with a proxy and one TLS upstream for HOST; all of it ends with the block."""
    made = World(directory)
    made.registry = EgressRegistry(directory / "run", made.settings(**settings))
    await made.listen(made.upstream, made.authority.server(HOST, "*.example.org"))
    try:
        async with made.registry:
            await made.start_proxy(*arguments)
            yield made
    finally:
        for client in made.clients:
            await client.close()
        for server in made.servers:
            server.close()
        for upstream in made.upstreams:
            await upstream.drop()
        for process in made.processes:
            if process.returncode is None:
                async with asyncio.timeout(5):
                    await process.wait()
