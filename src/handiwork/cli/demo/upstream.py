"""A small HTTPS service on loopback, with a certificate authority of its own.

It stands for the outside world in the demo: it wants a key, remembers whether it saw the right
one, and echoes what it was given, raw and in base64, as a careless service would.
"""

import asyncio
import base64
import datetime
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HEAD_LIMIT_BYTES = 16_384
_DAY = datetime.timedelta(days=1)


@dataclass
class Upstream:
    """The running service and what it saw."""

    port: int
    trust_anchor: str
    key: str = field(repr=False)
    requests: list[str] = field(default_factory=list)
    """`METHOD path host` of each request."""
    keys_right: int = 0
    """How many requests carried the real key."""


@asynccontextmanager
async def running(
    names: Sequence[str], key: str, now: datetime.datetime
) -> AsyncIterator[Upstream]:
    """Serve the names on a free loopback port until the body ends."""
    authority, certificate, private = _certificates(names, now)
    context = _context(certificate, private)
    upstream = Upstream(port=0, trust_anchor=authority, key=key)

    connected: set[asyncio.StreamWriter] = set()
    idle = asyncio.Event()
    idle.set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.add(writer)
        idle.clear()
        try:
            await _serve(upstream, reader, writer)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()
            connected.discard(writer)
            if not connected:
                idle.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context, limit=HEAD_LIMIT_BYTES)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        for writer in connected:
            writer.transport.abort()
        await idle.wait()


async def _serve(
    upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *lines = head.split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
        given = next(
            (x.split(": ", 1)[1] for x in lines if x.lower().startswith("authorization:")), ""
        )
        right = given == f"Bearer {upstream.key}"
        upstream.keys_right += right
        upstream.requests.append(f"{request.rsplit(' ', 1)[0]} {headers.get('host', '')}")
        body = json.dumps(_answer(given, right=right)).encode() + b"\n"
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        await writer.drain()


def _answer(given: str, *, right: bool) -> dict[str, object]:
    return {
        "service": "demo upstream",
        "key_accepted": right,
        "you_sent": given,
        "you_sent_base64": base64.b64encode(given.removeprefix("Bearer ").encode()).decode(),
    }


def _certificates(
    names: Sequence[str], now: datetime.datetime
) -> tuple[str, bytes, ec.EllipticCurvePrivateKey]:
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Handiwork demo upstream CA")])
    authority = (
        _builder(ca_name, ca_name, ca_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    leaf = (
        _builder(subject, ca_name, key.public_key(), now)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return authority.public_bytes(pem).decode(), leaf.public_bytes(pem), key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
    )


def _context(certificate: bytes, private: ec.EllipticCurvePrivateKey) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        key = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        Path(file.name).write_bytes(certificate + key)
        context.load_cert_chain(file.name)
    return context
