"""AWS Signature Version 4 of a request as the proxy sends it. Pure: the time is an argument.

The client's own signature, date and session token give way. What it says of its body's hash is
kept, for only the service can judge it; chunks that the client itself signed cannot be signed again.
"""

import hashlib
import hmac
import re
from datetime import datetime
from urllib.parse import quote, unquote_to_bytes

import msgspec

from handiwork.model.injection import SIGNATURE_HEADERS
from handiwork.model.redacted import shown_as_repr

Pair = tuple[bytes, bytes]

_ALGORITHM = "AWS4-HMAC-SHA256"
_UNSIGNED = "UNSIGNED-PAYLOAD"
_UNSIGNED_CHUNKS = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_NOTHING = hashlib.sha256(b"").hexdigest()
_HASH = re.compile(r"[0-9a-f]{64}")
_SPACES = re.compile(rb"[ \t]+")
_OURS = frozenset(name.encode("ascii") for name in SIGNATURE_HEADERS)


class CannotSign(ValueError):
    """The request has a form that this signature does not cover."""


class Signer(msgspec.Struct, frozen=True, kw_only=True):
    """Who signs, for which service in which region."""

    region: str
    service: str
    access_key_id: str
    secret_access_key: str
    session_token: str = ""

    def __repr__(self) -> str:
        return f"Signer({self.service} in {self.region})"

    __rich_repr__ = shown_as_repr

    def sign(
        self,
        method: bytes,
        target: str,
        host: bytes,
        fields: list[Pair],
        *,
        has_body: bool,
        now: datetime,
    ) -> tuple[Pair, ...]:
        """Return the headers to set; CannotSign says what stands against it."""
        path, _, query = target.partition("?")
        hashed = self._hashed(fields, has_body=has_body)
        stamp = now.strftime("%Y%m%dT%H%M%SZ")
        ours = {b"x-amz-content-sha256": hashed.encode(), b"x-amz-date": stamp.encode()}
        if self.session_token:
            ours[b"x-amz-security-token"] = self.session_token.encode()
        signed = _signed_fields(host, fields, ours)
        names = b";".join(signed).decode()
        lines = "".join(f"{name.decode()}:{signed[name].decode('latin-1')}\n" for name in signed)
        canonical = "\n".join(
            (method.decode(), self._path(path), _query(query), lines, names, hashed)
        )
        scope = f"{stamp[:8]}/{self.region}/{self.service}/aws4_request"
        digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
        signature = self._signature(stamp[:8], f"{_ALGORITHM}\n{stamp}\n{scope}\n{digest}")
        told = (
            f"{_ALGORITHM} Credential={self.access_key_id}/{scope},"
            f" SignedHeaders={names}, Signature={signature}"
        )
        return (*ours.items(), (b"authorization", told.encode("ascii")))

    def _hashed(self, fields: list[Pair], *, has_body: bool) -> str:
        told = [value for name, value in fields if name.lower() == b"x-amz-content-sha256"]
        if len(told) > 1:
            raise CannotSign("x-amz-content-sha256 is there twice")
        if not told:
            if has_body and self.service != "s3":
                raise CannotSign(
                    "a body needs its hash in x-amz-content-sha256 to be signed for"
                    f" {self.service}, as it is sent before it is whole"
                )
            return _UNSIGNED if has_body else _NOTHING
        given = told[0].decode("latin-1")
        if self.service == "s3" and given in (_UNSIGNED, _UNSIGNED_CHUNKS):
            return given
        if not _HASH.fullmatch(given):
            raise CannotSign(
                "the body has chunks signed by the client, or no hash that can be signed:"
                " let the client send the body's SHA-256 or, to s3, UNSIGNED-PAYLOAD"
            )
        return given

    def _path(self, path: str) -> str:
        """Return the canonical path, which all services but S3 encode a second time."""
        if self.service == "s3":
            return quote(unquote_to_bytes(path), safe="/~")
        return quote(path, safe="/~")

    def _signature(self, day: str, text: str) -> str:
        key = b"AWS4" + self.secret_access_key.encode()
        for part in (day, self.region, self.service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        return hmac.digest(key, text.encode(), "sha256").hex()


def _signed_fields(host: bytes, fields: list[Pair], ours: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Return what is signed, in order: the host and every field of Amazon's own."""
    found: dict[bytes, list[bytes]] = {b"host": [host]}
    for name, value in fields:
        key = name.lower()
        if key.startswith(b"x-amz-") and key not in _OURS:
            found.setdefault(key, []).append(_SPACES.sub(b" ", value.strip()))
    found |= {name: [value] for name, value in ours.items()}
    return {name: b",".join(found[name]) for name in sorted(found)}


def _query(query: str) -> str:
    """Return the canonical query; one that carries a signature of its own is refused."""
    pairs = []
    for piece in query.split("&"):
        if piece:
            name, _, value = piece.partition("=")
            pairs.append(tuple(quote(unquote_to_bytes(part), safe="~") for part in (name, value)))
    if any(name.lower() in ("x-amz-signature", "x-amz-algorithm") for name, _ in pairs):
        raise CannotSign("the URL is signed by the client: let it send an ordinary request")
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))
