"""What a fetch of guest code may ask, and where a redirect leads it. Pure."""

import re
from collections.abc import Sequence
from typing import Literal
from urllib.parse import urljoin, urlsplit, urlunsplit

import msgspec

from handiwork.model.errors import ToolFailedError

REDIRECTS = 20
URL_CHARACTERS = 16_384
HEADERS = 200
HEADER_BYTES = 64 << 10
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
OURS = frozenset(
    (
        *("connection", "content-length", "expect", "host", "keep-alive", "te", "trailer"),
        *("transfer-encoding", "upgrade", "via"),
    )
)
"""Headers that say how a message goes over a connection; those of guest code are left out."""
_CREDENTIALS = frozenset(("authorization", "cookie", "proxy-authorization"))
_OF_BODY = frozenset(("content-type", "content-encoding", "content-language", "content-location"))

Header = tuple[str, str]


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fetch as guest code sent it; `body` is base64 in JSON."""

    url: str
    method: str = "GET"
    headers: tuple[Header, ...] = ()
    body: bytes = b""
    redirect: Literal["follow", "manual", "error"] = "follow"


def checked(asked: Asked) -> Asked:
    """Return it as it may be sent; ToolFailedError says what is wrong with it."""
    if not _TOKEN.fullmatch(asked.method) or asked.method.upper() in ("CONNECT", "TRACE", "TRACK"):
        raise ToolFailedError(f"fetch: {asked.method[:40]!r} is no method that can be used")
    headers = tuple(_header(name, value) for name, value in asked.headers)
    headers = tuple(
        one for one in headers if one[0] not in OURS and not one[0].startswith("proxy-")
    )
    if len(headers) > HEADERS or sum(len(n) + len(v) for n, v in headers) > HEADER_BYTES:
        raise ToolFailedError(f"fetch: more than {HEADERS} headers or {HEADER_BYTES} bytes of them")
    return msgspec.structs.replace(asked, url=_url(asked.url), headers=headers)


def _header(name: str, value: str) -> Header:
    if not _TOKEN.fullmatch(name):
        raise ToolFailedError(f"fetch: {name[:40]!r} is no header name")
    text = value.strip(" \t")
    if not _VALUE.fullmatch(text) or not text.isascii():
        try:
            text.encode("latin-1")
        except UnicodeEncodeError:
            raise ToolFailedError(
                f"fetch: the value of {name} has characters that no header has"
            ) from None
        if not _VALUE.fullmatch(text):
            raise ToolFailedError(f"fetch: the value of {name} has a line break or the like")
    return name.lower(), text


def _url(url: str) -> str:
    """Return it without its fragment; what host and port mean is for the proxy to decide."""
    if len(url) > URL_CHARACTERS or not url.isascii() or not url.isprintable() or " " in url:
        raise ToolFailedError(f"fetch: {url[:80]!r} is no URL that can be sent")
    try:
        parts = urlsplit(url)
        named = parts.hostname, parts.port
    except ValueError as error:
        raise ToolFailedError(f"fetch: {url[:80]!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not named[0]:
        raise ToolFailedError(f"fetch: {url[:80]!r}: only http and https can be fetched")
    if "@" in parts.netloc:
        raise ToolFailedError("fetch: a URL with a password in it is not sent; use a header")
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", parts.query, ""))


def redirected(asked: Asked, status: int, locations: Sequence[str]) -> Asked | None:
    """Return what an answer asks to be asked instead; None when it is no redirect."""
    if status not in (301, 302, 303, 307, 308) or len(locations) != 1:
        return None
    try:
        following = urljoin(asked.url, locations[0])
    except ValueError as error:
        raise ToolFailedError(f"fetch: it is redirected to no URL: {error}") from None
    dropped: frozenset[str] = frozenset()
    method, body = asked.method, asked.body
    if (status == 303 and method not in ("GET", "HEAD")) or (
        status in (301, 302) and method == "POST"
    ):
        method, body, dropped = "GET", b"", _OF_BODY
    if _origin(following) != _origin(asked.url):
        dropped |= _CREDENTIALS
    headers = tuple(one for one in asked.headers if one[0] not in dropped)
    return checked(
        msgspec.structs.replace(asked, url=following, method=method, body=body, headers=headers)
    )


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme,
            parts.hostname,
            parts.port or {"http": 80, "https": 443}.get(parts.scheme),
        )
    except ValueError as error:
        raise ToolFailedError(f"fetch: it is redirected to {url[:80]!r}: {error}") from None


def head(asked: Asked) -> bytes:
    """Return the head of the request, in absolute form, on a connection that is for it alone."""
    host = urlsplit(asked.url).netloc
    own = {name for name, _ in asked.headers}
    lines = [f"{asked.method} {asked.url} HTTP/1.1", f"host: {host}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in asked.headers]
    if "accept-encoding" not in own:
        lines.append("accept-encoding: gzip")
    if "accept" not in own:
        lines.append("accept: */*")
    if asked.body or asked.method in ("POST", "PUT", "PATCH"):
        lines.append(f"content-length: {len(asked.body)}")
    return "\r\n".join((*lines, "", "")).encode("latin-1")
