"""Certificate authorities for interception: one per session, derived, the same after any restart.

The key follows from a root that only the proxy has, the authority's id and its generation; the
signature is deterministic (RFC 6979), so that two processes and two lives make the same bytes.
"""

import functools
import os
import ssl
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from handiwork.model.canonical import canonical_host, is_address

LEAF_HOURS = 24
_LEAF_RENEWED_HOURS_BEFORE_END = 4
_CLOCK_SKEW = timedelta(hours=1)
# The order of the group of P-256 (FIPS 186-4, D.1.2.3).
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
# Fixed, so that the certificate does not depend on when it was made.
_NOT_BEFORE = datetime(2024, 1, 1, tzinfo=UTC)
_NOT_AFTER = datetime(2049, 12, 31, tzinfo=UTC)


def _derive(root: bytes, purpose: str, ca_id: str, generation: int, size: int) -> bytes:
    info = f"handiwork ca 1\0{purpose}\0{ca_id}\0{generation}".encode()
    return HKDF(SHA256(), size, salt=None, info=info).derive(root)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@functools.cache
def _leaf_key() -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """Return this process's one key for leaves, and its PEM; it lives only in memory."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


class Authority:
    """The authority of one id and generation: its certificate, and leaves for intercepted names.

    `now` tells the time in UTC. At most `limit` contexts are kept; ask only for names that the
    policy may permit.
    """

    def __init__(
        self,
        root: bytes,
        ca_id: str,
        generation: int,
        *,
        now: Callable[[], datetime],
        limit: int = 256,
    ) -> None:
        if len(root) < 32 or "\0" in ca_id or not ca_id or generation < 0:
            raise ValueError("an authority needs a root of 32 bytes, an id and a generation")
        scalar = int.from_bytes(_derive(root, "key", ca_id, generation, 48), "big")
        self._key = ec.derive_private_key(scalar % (_P256_ORDER - 1) + 1, ec.SECP256R1())
        serial = _derive(root, "serial", ca_id, generation, 19)
        self._certificate = self._sign_itself(ca_id, generation, int.from_bytes(serial, "big") + 1)
        self._issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        self._now, self._limit = now, limit
        self._contexts: OrderedDict[str, tuple[datetime, ssl.SSLContext]] = OrderedDict()
        self.certificate_pem = self._certificate.public_bytes(Encoding.PEM).decode()

    def __repr__(self) -> str:
        return f"Authority({self._certificate.subject.rfc4514_string()})"

    def _sign_itself(self, ca_id: str, generation: int, serial: int) -> x509.Certificate:
        name = _name(f"Handiwork {ca_id[:40]} {generation}"[:64])
        public = self._key.public_key()
        return (
            x509.CertificateBuilder(name, name, public, serial, _NOT_BEFORE, _NOT_AFTER)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self._key, SHA256(), ecdsa_deterministic=True)
        )

    def mint(self, host: str) -> x509.Certificate:
        """Return a new leaf for one canonical host: 24 hours, this process's leaf key."""
        if canonical_host(host) != host:
            raise ValueError("leaves are for canonical hosts only")
        start = self._now()
        subject = _name(host) if len(host) <= 64 else x509.Name([])
        alternative: x509.GeneralName = x509.DNSName(host)
        if is_address(host):
            alternative = x509.IPAddress(ip_address(host))
        return (
            x509.CertificateBuilder(
                self._certificate.subject,
                subject,
                _leaf_key()[0].public_key(),
                x509.random_serial_number(),
                start - _CLOCK_SKEW,
                start + timedelta(hours=LEAF_HOURS),
            )
            .add_extension(x509.SubjectAlternativeName([alternative]), critical=not list(subject))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(self._issuer_id, critical=False)
            .sign(self._key, SHA256())
        )

    def context(self, host: str) -> ssl.SSLContext:
        """Return the server side of TLS for one canonical host: TLS 1.2 or later, HTTP/1.1 only."""
        now = self._now()
        kept = self._contexts.get(host)
        if kept is not None and now < kept[0]:
            self._contexts.move_to_end(host)
            return kept[1]
        context = _server_context(self.mint(host))
        renew = now + timedelta(hours=LEAF_HOURS - _LEAF_RENEWED_HOURS_BEFORE_END)
        self._contexts[host] = (renew, context)
        self._contexts.move_to_end(host)
        while len(self._contexts) > self._limit:
            self._contexts.popitem(last=False)
        return context


def _server_context(leaf: x509.Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    # OpenSSL's binding reads keys from a path only; this one is memory, on no disk.
    descriptor = os.memfd_create("leaf", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, leaf.public_bytes(Encoding.PEM) + _leaf_key()[1])
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context
