"""What a rule may set on a request, by kind: a header, a bearer, Basic credentials, a query
parameter, a cookie, or a signature. Pure: values are arguments.

The client's own copies of what is set never travel on; where each kind stands on the wire is in
`egress/injecting.py`.
"""

import re
from typing import NoReturn

import msgspec

from handiwork.model.errors import ConfigError
from handiwork.model.ids import check_name
from handiwork.model.secret import check_template, references

SIGNATURE_HEADERS = ("x-amz-content-sha256", "x-amz-date", "x-amz-security-token")
"""What a signature for AWS sets beside `authorization`."""

CONTROLLED_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that the proxy itself writes or removes: framing, hop-by-hop, and what masking needs."""

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", re.ASCII)
_SCOPE = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)
_PARAMETER = re.compile(r"[A-Za-z0-9_.~-]{1,128}", re.ASCII)


class _Kind(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"
):
    pass


class HeaderInjection(_Kind, frozen=True, kw_only=True, tag="header"):
    """Set `header` to `value`, in which `${secret:NAME}` stands for a secret."""

    header: str
    value: str


class BearerInjection(_Kind, frozen=True, kw_only=True, tag="bearer"):
    """Set `Authorization: Bearer` and the secret of this name."""

    secret: str


class BasicInjection(_Kind, frozen=True, kw_only=True, tag="basic"):
    """Set `Authorization: Basic` with the secret as password; `username` may name secrets itself."""

    username: str = ""
    secret: str


class QueryInjection(_Kind, frozen=True, kw_only=True, tag="query"):
    """Set one query parameter, its value percent-encoded."""

    name: str
    value: str


class CookieInjection(_Kind, frozen=True, kw_only=True, tag="cookie"):
    """Set one cookie beside those that the client sends."""

    name: str
    value: str


class SigV4Injection(_Kind, frozen=True, kw_only=True, tag="sigv4"):
    """Sign the request anew for AWS with the secrets of these names."""

    region: str
    service: str
    access_key_id: str
    secret_access_key: str
    session_token: str = ""


Injection = (
    HeaderInjection
    | BearerInjection
    | BasicInjection
    | QueryInjection
    | CookieInjection
    | SigV4Injection
)


def with_kind(entry: object) -> object:
    """Return a rule as it was read, each injection without a kind being of kind `header`."""
    if not isinstance(entry, dict) or not isinstance(entry.get("inject"), list):
        return entry
    told = [{"kind": "header", **one} if isinstance(one, dict) else one for one in entry["inject"]]
    return {**entry, "inject": told}


def secrets_of(injection: Injection) -> tuple[str, ...]:
    """Return the names of the secrets that an injection refers to, in order."""
    if isinstance(injection, BearerInjection):
        return (injection.secret,)
    if isinstance(injection, BasicInjection):
        return (*references(injection.username), injection.secret)
    if isinstance(injection, SigV4Injection):
        token = (injection.session_token,) if injection.session_token else ()
        return (injection.access_key_id, injection.secret_access_key, *token)
    return references(injection.value)


def claims_of(injection: Injection) -> tuple[str, ...]:
    """Name what the injection sets, which nothing else may set on the same request.

    All cookies travel in one header, so whoever sets one claims that header.
    """
    if isinstance(injection, HeaderInjection):
        return (f"header {injection.header.lower()!r}",)
    if isinstance(injection, QueryInjection):
        return (f"query parameter {injection.name.lower()!r}",)
    if isinstance(injection, CookieInjection):
        return ("header 'cookie'",)
    if isinstance(injection, SigV4Injection):
        return ("header 'authorization'", *(f"header {name!r}" for name in SIGNATURE_HEADERS))
    return ("header 'authorization'",)


def check_injections(where: str, injections: tuple[Injection, ...]) -> None:
    """Raise ConfigError, which begins with `where`, unless all of them can stand on one request."""
    seen: set[str] = set()
    for injection in injections:
        _check(where, injection)
        claims = claims_of(injection)
        if isinstance(injection, CookieInjection):
            claims = (f"cookie {injection.name.lower()!r}",)
        for place in claims:
            if place in seen:
                _reject(f"{where}, inject", f"{place} is set twice by one rule")
        seen.update(claims)
    if "header 'cookie'" in seen and any(isinstance(one, CookieInjection) for one in injections):
        _reject(f"{where}, inject", "sets a cookie and the header 'cookie': use the kind cookie")


def _check(where: str, injection: Injection) -> None:
    if isinstance(injection, HeaderInjection):
        _check_header(where, injection)
    elif isinstance(injection, QueryInjection | CookieInjection):
        _check_pair(where, injection)
    elif isinstance(injection, SigV4Injection):
        _check_signature(where, injection)
    else:
        _check_credentials(where, injection)


def _check_header(where: str, injection: HeaderInjection) -> None:
    header = injection.header.lower()
    if not _TOKEN.fullmatch(header):
        _reject(f"{where}, inject.header", f"{header[:80]!r} is not a header name")
    if header in CONTROLLED_HEADERS:
        _reject(f"{where}, inject.header", f"{header!r} is written by the proxy itself")
    _check_value(f"{where}, inject.value of {header!r}", injection.value)


def _check_pair(where: str, injection: QueryInjection | CookieInjection) -> None:
    if not _PARAMETER.fullmatch(injection.name):
        _reject(
            f"{where}, inject.name",
            f"{injection.name[:80]!r}: use letters, digits and any of '_.~-'",
        )
    _check_value(f"{where}, inject.value of {injection.name!r}", injection.value)
    if isinstance(injection, CookieInjection) and not set(injection.value).isdisjoint(' ",;\\'):
        _reject(
            f"{where}, inject.value of {injection.name!r}",
            "a cookie's value has no space, quote, comma, semicolon or backslash",
        )


def _check_credentials(where: str, injection: BearerInjection | BasicInjection) -> None:
    _check_secret(f"{where}, inject.secret", injection.secret)
    if isinstance(injection, BasicInjection) and injection.username:
        _check_value(f"{where}, inject.username", injection.username)
        if ":" in injection.username.replace("${secret:", ""):
            _reject(f"{where}, inject.username", "has a ':', which ends the name in Basic")


def _check_signature(where: str, injection: SigV4Injection) -> None:
    for field in ("region", "service"):
        if not _SCOPE.fullmatch(getattr(injection, field)):
            _reject(f"{where}, inject.{field}", "use lower-case letters, digits and '-'")
    for field in ("access_key_id", "secret_access_key", "session_token"):
        name = getattr(injection, field)
        if name or field != "session_token":
            _check_secret(f"{where}, inject.{field}", name)


def _check_secret(where: str, name: str) -> None:
    try:
        check_name("secret", name)
    except ConfigError as error:
        _reject(where, str(error))


def _check_value(where: str, value: str) -> None:
    try:
        check_template(value)
    except ConfigError as error:
        _reject(where, str(error))


def _reject(where: str, message: str) -> NoReturn:
    raise ConfigError(f"{where}: {message}")
