"""What a head says, before anybody judges it: its place, its path, its framing; or why it is refused."""

from typing import NamedTuple

import msgspec

from handiwork.egress.canonical import NotCanonical, canonical_path, split_authority
from handiwork.egress.proxy.grants import Injected
from handiwork.model.placeholder import placeholders_in
from handiwork.model.policy import DEFAULT_PORTS, Scheme

FRAMING = "framing"
LIMITS = "limits"
PLACEHOLDER = "placeholder"


class Refusal(Exception):
    """The request is not sent; the guest is told the status, the rule and the reason."""

    def __init__(self, status: int, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.rule = rule
        self.reason = reason


class Place(NamedTuple):
    """Where a request says it goes, canonical."""

    scheme: Scheme
    host: str
    port: int

    @property
    def authority(self) -> bytes:
        """The Host field for it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = DEFAULT_PORTS[self.scheme] == self.port
        return (host if default else f"{host}:{self.port}").encode("ascii")


class Facts:
    """What the fields of a head say, kept while a guest sends the same fields again.

    `tail` is all of the head for the upstream but its first line, valid for `sent_with`.
    """

    __slots__ = (
        "chunked",
        "has_body",
        "headers",
        "host",
        "length",
        "placeholders",
        "sent_with",
        "tail",
        "trailers",
        "upgrade",
    )

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        names = [name for name, _ in headers]
        fields = dict(headers)
        if names.count(b"host") != 1:
            raise Refusal(400, FRAMING, "a request needs exactly one Host")
        coding = fields.get(b"transfer-encoding")
        if coding is not None and (
            coding.lower() != b"chunked" or names.count(b"transfer-encoding") != 1
        ):
            raise Refusal(400, FRAMING, "the only transfer coding is chunked")
        length = fields.get(b"content-length")
        self.headers = headers
        self.host = fields[b"host"]
        self.chunked = coding is not None
        self.length = None if length is None or self.chunked else int(length)
        self.has_body = self.chunked or bool(self.length)
        self.trailers = b"trailers" in fields.get(b"te", b"").lower()
        self.upgrade = fields.get(b"upgrade", b"").lower()
        self.placeholders = placeholders_in(b"\n".join([b"%b\n%b" % field for field in headers]))
        self.sent_with: tuple[Injected, Place] | None = None
        self.tail = b""


class Shown(msgspec.Struct, frozen=True):
    """The head of an answer as the guest gets it, and what it was made `of`."""

    of: tuple[int, bytes, list[tuple[bytes, bytes]], bool, bool, Injected]
    head: bytes
    chunked: bool
    hits: int
    coding: bytes


def origin_form(target: bytes) -> str:
    """Return path and query of a target in either form."""
    text = target.decode("latin-1")
    if text.startswith("/"):
        return text
    _, _, rest = text.partition("://")
    cut = min((place for place in (rest.find("/"), rest.find("?")) if place >= 0), default=-1)
    if cut < 0:
        return "/"
    return rest[cut:] if rest[cut] == "/" else "/" + rest[cut:]


def path_of(target: str) -> tuple[str, str]:
    """Return the canonical path and the query; Refusal where there is none."""
    try:
        return canonical_path(target)
    except NotCanonical as error:
        raise Refusal(400, FRAMING, str(error)) from None


def place_of(scheme: Scheme, authority: bytes) -> Place:
    """Return the place that an authority names; Refusal when it is not a valid one."""
    try:
        host, port = split_authority(authority.decode("latin-1"), DEFAULT_PORTS[scheme])
    except NotCanonical as error:
        raise Refusal(400, FRAMING, str(error)) from None
    return Place(scheme, host, port)
