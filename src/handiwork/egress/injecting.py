"""Injections on the wire: headers, query parameters and cookies, in the place of the client's own."""

import base64
import re
from urllib.parse import quote, unquote_plus

import msgspec

from handiwork.egress.sigv4 import Pair, Signer
from handiwork.model.errors import SecretMissingError
from handiwork.model.injection import (
    BasicInjection,
    BearerInjection,
    CookieInjection,
    HeaderInjection,
    Injection,
    QueryInjection,
    SigV4Injection,
)
from handiwork.model.redacted import shown_as_repr
from handiwork.model.secret import fill

_PAIR_ENDS = re.compile(r"[&;]")
_INSIDE_COOKIE = re.compile(rb"[,\s]+")
_NOT_IN_COOKIE = frozenset(' ",;\\')


class Written(msgspec.Struct, frozen=True):
    """What is set on a request, secrets and all: never shown."""

    headers: tuple[Pair, ...] = ()
    query: tuple[tuple[str, str], ...] = ()
    cookies: tuple[Pair, ...] = ()
    signer: Signer | None = None

    def __repr__(self) -> str:
        return "Written(…)"

    __rich_repr__ = shown_as_repr

    def on_target(self, path: str, query: str) -> str:
        """Return the target with our parameters last and the client's of the same name gone."""
        if not self.query:
            return f"{path}?{query}" if query else path
        ours = {name.lower() for name, _ in self.query}
        kept = [piece for piece in query.split("&") if piece and not _names(piece, ours)]
        return f"{path}?{'&'.join([*kept, *(f'{name}={value}' for name, value in self.query)])}"

    def on_fields(self, fields: list[Pair]) -> tuple[Pair, ...]:
        """Return the headers to set beside the client's, its other cookies joined to ours."""
        if not self.cookies:
            return self.headers
        ours = {name.lower() for name, _ in self.cookies}
        pieces = [
            piece.strip()
            for name, value in fields
            if name.lower() == b"cookie"
            for piece in value.split(b";")
        ]
        kept = [piece for piece in pieces if piece and not _is_cookie(piece, ours)]
        cookies = [b"%b=%b" % pair for pair in self.cookies]
        return (*self.headers, (b"cookie", b"; ".join([*kept, *cookies])))


def _names(piece: str, ours: set[str]) -> bool:
    """Say whether some server could read one of our parameters in a piece of the client's query.

    Some split at `;` too, take any case, and read `name[]` as `name`.
    """
    return any(
        unquote_plus(part.partition("=")[0]).partition("[")[0].strip().lower() in ours
        for part in _PAIR_ENDS.split(piece)
    )


def _is_cookie(piece: bytes, ours: set[bytes]) -> bool:
    """Say whether some server could read one of our cookies there: some split at `,` or spaces."""
    return any(
        unquote_plus(part.partition(b"=")[0].decode("latin-1")).strip('" ').lower().encode() in ours
        for part in (piece, *_INSIDE_COOKIE.split(piece))
    )


def written(injections: tuple[Injection, ...], values: dict[str, str]) -> Written:
    """Return what the injections set; SecretMissingError where a value cannot stand there."""
    headers: list[Pair] = []
    query: list[tuple[str, str]] = []
    cookies: list[Pair] = []
    signer = None
    for injection in injections:
        if isinstance(injection, QueryInjection):
            query.append((injection.name, quote(fill(injection.value, values), safe="")))
        elif isinstance(injection, CookieInjection):
            cookies.append(_cookie(injection, values))
        elif isinstance(injection, SigV4Injection):
            signer = _signer(injection, values)
        else:
            headers.append(_header(injection, values))
    return Written(tuple(headers), tuple(query), tuple(cookies), signer)


def _header(
    injection: HeaderInjection | BearerInjection | BasicInjection, values: dict[str, str]
) -> Pair:
    if isinstance(injection, HeaderInjection):
        name, value = injection.header.lower(), fill(injection.value, values)
    elif isinstance(injection, BearerInjection):
        name, value = "authorization", f"Bearer {values[injection.secret]}"
    else:
        username = fill(injection.username, values)
        if ":" in username:
            raise SecretMissingError("the secret in a Basic username has a ':' and cannot be one")
        pair = f"{username}:{values[injection.secret]}".encode("ascii")
        name, value = "authorization", f"Basic {base64.b64encode(pair).decode()}"
    return name.encode("ascii"), value.encode("ascii")


def _cookie(injection: CookieInjection, values: dict[str, str]) -> Pair:
    value = fill(injection.value, values)
    if not _NOT_IN_COOKIE.isdisjoint(value):
        raise SecretMissingError(f"the secret of the cookie {injection.name} cannot stand in one")
    return injection.name.encode("ascii"), value.encode("ascii")


def _signer(injection: SigV4Injection, values: dict[str, str]) -> Signer:
    token = injection.session_token
    return Signer(
        region=injection.region,
        service=injection.service,
        access_key_id=values[injection.access_key_id],
        secret_access_key=values[injection.secret_access_key],
        session_token=values[token] if token else "",
    )
