"""Heads on their way: never the raw bytes, always written anew from parsed fields.

Hop-by-hop fields go first, the client's copies of injected fields next, then ours are set; so no
`Connection: authorization` and no second copy can undo or shadow an injection. Framing is not
copied either: the caller says how the body that follows is framed.
"""

import string
from collections.abc import Collection, Sequence

import msgspec

from handiwork.egress.decoding import decodable
from handiwork.egress.mask import Mask

Headers = Sequence[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"content-length",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Some frameworks judge by these instead of the method and path that the policy judged.
_OVERRIDES = frozenset(
    {
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"x-original-url",
        b"x-rewrite-url",
    }
)
_NOT_FROM_CLIENT = _HOP_BY_HOP | _OVERRIDES | {b"host"}
# What would make an answer unreadable to the mask: compressed, partial or a difference.
_UNSCANNABLE = frozenset(
    {b"a-im", b"accept-encoding", b"if-range", b"range", b"sec-websocket-extensions"}
)
_NOT_FROM_CLIENT_IF_SECRET = _NOT_FROM_CLIENT | _UNSCANNABLE
# The other services that an answer names are not for the guest to try; what we say, only we say.
_NOT_FROM_UPSTREAM = _HOP_BY_HOP | {b"alt-svc", b"x-handiwork-error", b"x-handiwork-rule"}
# What was said of the bytes as they were compressed.
_OF_CODED = frozenset(
    {b"accept-ranges", b"content-digest", b"content-encoding", b"content-md5", b"digest"}
)
# Trailers come too late for what they would change: framing, routing, credentials, the body's kind.
_NOT_IN_TRAILERS = (
    _NOT_FROM_CLIENT
    | _UNSCANNABLE
    | _NOT_FROM_UPSTREAM
    | {
        b"age",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"cookie",
        b"date",
        b"expect",
        b"expires",
        b"forwarded",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-unmodified-since",
        b"location",
        b"max-forwards",
        b"pragma",
        b"retry-after",
        b"set-cookie",
        b"vary",
        b"warning",
        b"www-authenticate",
    }
)
MAX_TRAILERS = 100
MAX_TRAILER_BYTES = 65_536
_TOKEN = (string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~").encode()

_CONTROLS = bytes({*range(0x20), 0x7F} - {0x09})


class NotSendable(ValueError):
    """A field cannot be written without changing the meaning of the head around it."""


class Framing(msgspec.Struct, frozen=True, kw_only=True):
    """How what follows a head is delimited: `length` bytes, chunks, or neither.

    `upgrade` names the protocol switched to (`websocket`); `close` says that the connection ends
    after this message; `trailers` that the sender of a request wants those of the answer.
    """

    length: int | None = None
    chunked: bool = False
    upgrade: bytes | None = None
    close: bool = False
    trailers: bool = False


NO_BODY = Framing()


def _kept(
    headers: Headers, dropped: Collection[bytes], also: Collection[bytes] = ()
) -> list[tuple[bytes, bytes]]:
    """Return the fields that travel on: neither dropped, nor named by a Connection field.

    A name with underscores counts as the one with hyphens: gateways (CGI, WSGI) join the two.
    """
    fields = [(_joined(name), name, value) for name, value in headers]
    named = {
        option.strip().lower()
        for key, _, value in fields
        if key == b"connection"
        for option in value.split(b",")
    }
    named.update(also)
    return [(name, value) for key, name, value in fields if key not in dropped and key not in named]


def travelling(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the fields that are of the message, not of one hop of it."""
    return _kept(headers, _NOT_FROM_CLIENT)


def _joined(name: bytes) -> bytes:
    return name.lower().replace(b"_", b"-")


def _delimiters(framing: Framing) -> bytes:
    """Return the fields that say how the message ends, written by us alone."""
    lines = b""
    if framing.upgrade is not None:
        if framing.upgrade.translate(None, _TOKEN) or not framing.upgrade:
            raise NotSendable("the protocol of an upgrade is not a token")
        lines = b"connection: upgrade\r\nupgrade: %b\r\n" % framing.upgrade
    elif framing.close:
        lines = b"connection: close\r\n"
    elif framing.trailers:
        lines = b"connection: te\r\nte: trailers\r\n"
    if framing.chunked:
        if framing.length is not None:
            raise NotSendable("a body is either chunked or of known length")
        return lines + b"transfer-encoding: chunked\r\n"
    if framing.length is not None:
        return lines + b"content-length: %d\r\n" % framing.length
    return lines


def _block(start: bytes, fields: list[tuple[bytes, bytes]]) -> bytes:
    """Write lines; refuse names that are no tokens, and control characters inside a field."""
    names = [name for name, _ in fields]
    if b"".join(names).translate(None, _TOKEN) or b"" in names:
        raise NotSendable("a header name is not a token")
    block = start + b"".join([b"%b: %b\r\n" % field for field in fields])
    lines = len(fields) + 1
    # Two controls a line, its own end: anything else is a break or NUL inside a field.
    if len(block) - len(block.translate(None, _CONTROLS)) != 2 * lines:
        raise NotSendable("a line of the head holds a control character")
    return block


def request_head(
    method: bytes,
    path: bytes,
    host: bytes,
    headers: Headers,
    set_headers: Headers,
    *,
    identity: bool,
    framing: Framing = NO_BODY,
) -> bytes:
    """Return the head of a request for the upstream, in HTTP/1.1.

    `path` is the canonical path with its query; `host` goes first, as given. `identity` is for a
    flow that carries a secret: no compression, no ranges, no WebSocket extensions.
    """
    if not method or method.translate(None, _TOKEN):
        raise NotSendable("the method is not a token")
    if not path.startswith(b"/") or b" " in path or b" " in host or not host:
        raise NotSendable("the path or host is not in canonical form")
    ours = {_joined(name) for name, _ in set_headers}
    dropped = _NOT_FROM_CLIENT_IF_SECRET if identity else _NOT_FROM_CLIENT
    fields = [(b"host", host), *_kept(headers, dropped, ours)]
    if framing.chunked:
        fields += _announced(headers)
    if identity:
        fields.append((b"accept-encoding", b"identity"))
    fields += set_headers
    start = b"%b %b HTTP/1.1\r\n" % (method, path)
    return _block(start, fields) + _delimiters(framing) + b"\r\n"


def response_head(
    status: int,
    reason: bytes,
    headers: Headers,
    mask: Mask,
    *,
    framing: Framing = NO_BODY,
    decoded: bool = False,
) -> bytes:
    """Return the head of a response for the guest, in HTTP/1.1, every field masked.

    For answers to HEAD and for 304 give the upstream's length; for 1xx, 204 and bodies that end
    with the connection give neither length nor chunked (and `close` for the latter). `decoded` is
    for a body whose content coding is undone on the way.
    """
    if not 100 <= status <= 999:
        raise NotSendable("the status is not of three digits")
    start = b"HTTP/1.1 %d %b\r\n" % (status, reason)
    fields = _kept(headers, _NOT_FROM_UPSTREAM)
    if decoded:
        fields = [_weakened(field) for field in fields if field[0].lower() not in _OF_CODED]
    if framing.chunked:
        fields += _announced(headers)
    shown = mask.apply(_block(start, fields))
    return shown + _delimiters(framing) + b"\r\n"


def _weakened(field: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """Return a field; an ETag as one that promises the same meaning, not the same bytes."""
    name, value = field
    if name.lower() == b"etag" and not value.startswith(b"W/"):
        return name, b"W/" + value
    return field


def _announced(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the field that announces trailers, for those that are passed on."""
    names = [
        name.strip()
        for key, value in headers
        if key.lower() == b"trailer"
        for name in value.split(b",")
    ]
    kept = [name for name in names if name and _joined(name) not in _NOT_IN_TRAILERS]
    return [(b"trailer", b", ".join(kept))] if kept else []


def trailers(fields: Headers) -> list[tuple[bytes, bytes]]:
    """Return the trailers that travel on; NotSendable where they cannot be written, or are too large."""
    kept = _kept(fields, _NOT_IN_TRAILERS)
    if len(fields) > MAX_TRAILERS or len(_block(b"\r\n", kept)) > MAX_TRAILER_BYTES:
        raise NotSendable("the trailers are too many or too large")
    return kept


def trailer_lines(kept: Headers, set_headers: Headers = ()) -> bytes:
    """Return trailers as lines, but for copies of what was set in the head."""
    ours = {_joined(name) for name, _ in set_headers}
    return b"".join([b"%b: %b\r\n" % field for field in kept if _joined(field[0]) not in ours])


def coding(headers: Headers) -> bytes:
    """Return the content codings of a body, in lower case; nothing where it is as it is."""
    told = [
        one.strip().lower()
        for name, value in headers
        if name.lower() == b"content-encoding"
        for one in value.split(b",")
    ]
    return b", ".join([one for one in told if one not in (b"", b"identity")])


def unscannable(headers: Headers) -> str | None:
    """Return why the body of a response cannot be masked, or None when it can be read.

    An upstream may compress although it was told not to; on a flow that carries a secret, what is
    not decoded here must not be passed on.
    """
    coded = coding(headers)
    if coded and not decodable(coded):
        return "the answer has a content coding that cannot be read, although none was asked for"
    for name, value in headers:
        key, told = name.lower(), value.strip().lower()
        if key == b"transfer-encoding" and told != b"chunked":
            return "the answer has a transfer coding other than chunked"
        if key == b"sec-websocket-extensions" and told:
            return "the answer turns on a WebSocket extension that was not asked for"
    return None
