"""The guest's name service: fake addresses for names that a policy may permit, nothing else.

No question ever leaves: what a guest asks for reaches no resolver, so names cannot carry data
out. The true address is looked up by the proxy when it dials.
"""

import hashlib
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

import msgspec

from handiwork.model.canonical import NotCanonical, canonical_host, is_address

TTL_SECONDS = 60
MAX_QUERY_BYTES = 4096

_HEADER = struct.Struct(">6H")
_TYPE_A, _TYPE_AAAA, _CLASS_IN = 1, 28, 1
_TYPES = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA"}
_TYPES |= {33: "SRV", 64: "SVCB", 65: "HTTPS", 255: "ANY"}
_RESPONSE, _OPCODE, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x8000, 0x7800, 0x0100, 0x0080
_FORMERR, _SERVFAIL, _NXDOMAIN, _NOTIMP, _REFUSED = 1, 2, 3, 4, 5
_POINTER_TO_QUESTION = 0xC00C

Outcome = Literal["answered", "nodata", "denied", "exhausted", "malformed"]


class DnsFact(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked and how it ended, for the audit. `name` is canonical, or empty."""

    outcome: Outcome
    name: str = ""
    type: str = ""
    address: str = ""


class FakeNames:
    """One sandbox's addresses: each name gets one, and no address ever stands for two names.

    An address follows from `seed` and the name where it is free, so that a new map of the same
    sandbox mostly gives the same answers.
    """

    def __init__(
        self, *, network: str = "198.18.0.0/15", limit: int = 4096, seed: bytes = b""
    ) -> None:
        parsed = IPv4Network(network)
        # The first and the last address stay unused: some stacks read them as broadcasts.
        self._first, self._size = int(parsed.network_address) + 1, parsed.num_addresses - 2
        if not 0 < limit <= self._size // 2:
            raise ValueError("the limit must leave half of the network free")
        self._limit, self._seed = limit, seed
        self._addresses: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def address(self, name: str) -> str | None:
        """Return the address of a canonical name; None when the map is full."""
        found = self._addresses.get(name)
        if found is None and len(self._addresses) < self._limit:
            found = self._free(name)
            self._addresses[name] = found
            self._names[found] = name
        return found

    def name(self, address: str) -> str | None:
        """Return the name that an address was given to."""
        return self._names.get(address)

    def _free(self, name: str) -> str:
        digest = hashlib.sha256(self._seed + b"\0" + name.encode()).digest()
        place = int.from_bytes(digest[:8], "big")
        while (candidate := str(IPv4Address(self._first + place % self._size))) in self._names:
            place += 1
        return candidate


class _Question(msgspec.Struct, frozen=True, kw_only=True):
    name: str | None
    type: int
    klass: int
    raw: bytes


def _read_labels(query: bytes) -> tuple[list[bytes], int] | None:
    """Return the labels and where they end; no compression: a question has nothing to point at."""
    labels: list[bytes] = []
    place = _HEADER.size
    while place < len(query):
        length = query[place]
        place += 1
        if length == 0:
            return labels, place
        if length > 63 or place + length > len(query) or place + length - _HEADER.size > 254:
            return None
        labels.append(query[place : place + length])
        place += length
    return None


def _read_question(query: bytes) -> _Question | None:
    read = _read_labels(query)
    if read is None or read[1] + 4 > len(query):
        return None
    labels, end = read
    kind, klass = struct.unpack_from(">2H", query, end)
    name = None
    if labels and not any(b"." in label for label in labels):
        try:
            name = canonical_host(b".".join(labels).decode("ascii"))
        except (NotCanonical, UnicodeDecodeError):
            name = None
    return _Question(name=name, type=kind, klass=klass, raw=query[_HEADER.size : end + 4])


def _reply(query: bytes, code: int, question: bytes = b"", answer: bytes = b"") -> bytes:
    ident, flags = struct.unpack_from(">2H", query)
    flags = (flags & (_OPCODE | _RECURSION_DESIRED)) | _RESPONSE | _RECURSION_AVAILABLE | code
    counts = (1 if question else 0, 1 if answer else 0, 0, 0)
    return _HEADER.pack(ident, flags, *counts) + question + answer


def _record(kind: int, data: bytes) -> bytes:
    head = struct.pack(">3HIH", _POINTER_TO_QUESTION, kind, _CLASS_IN, TTL_SECONDS, len(data))
    return head + data


def _refuse_form(query: bytes) -> tuple[bytes, DnsFact] | None:
    """Answer what is no plain query with one question; None when it is one."""
    fact = DnsFact(outcome="malformed")
    if len(query) < _HEADER.size:
        return b"", fact
    _, flags, questions, answers, authorities, _ = _HEADER.unpack_from(query)
    if flags & _RESPONSE:
        return b"", fact
    if flags & _OPCODE:
        return _reply(query, _NOTIMP), fact
    if len(query) > MAX_QUERY_BYTES or questions != 1 or answers or authorities:
        return _reply(query, _FORMERR), fact
    return None


def answer(
    query: bytes, names: FakeNames, may_reach: Callable[[str], bool]
) -> tuple[bytes, DnsFact]:
    """Return the reply to one query and what it was; an empty reply means: stay silent.

    An address question for a name that `may_reach` permits gets a fake address; any other type
    for it gets no data (which also keeps HTTP/3 and ECH hints away); other names do not exist.
    """
    refused = _refuse_form(query)
    if refused is not None:
        return refused
    question = _read_question(query)
    if question is None:
        return _reply(query, _FORMERR), DnsFact(outcome="malformed")
    kind = _TYPES.get(question.type, f"TYPE{question.type}")
    name = question.name or ""
    if question.klass != _CLASS_IN:
        fact = DnsFact(outcome="denied", name=name, type=kind)
        return _reply(query, _REFUSED, question.raw), fact
    if name == "localhost" or name.endswith(".localhost"):
        return _answer_localhost(query, question, kind)
    if not name or is_address(name) or not may_reach(name):
        fact = DnsFact(outcome="denied", name=name, type=kind)
        return _reply(query, _NXDOMAIN, question.raw), fact
    if question.type != _TYPE_A:
        fact = DnsFact(outcome="nodata", name=name, type=kind)
        return _reply(query, 0, question.raw), fact
    return _answer_fake(query, question, name, names)


def _answer_localhost(query: bytes, question: _Question, kind: str) -> tuple[bytes, DnsFact]:
    loopback = {_TYPE_A: IPv4Address("127.0.0.1").packed, _TYPE_AAAA: bytes(15) + b"\1"}
    data = loopback.get(question.type)
    record = b"" if data is None else _record(question.type, data)
    outcome: Outcome = "nodata" if data is None else "answered"
    fact = DnsFact(outcome=outcome, name=question.name or "", type=kind)
    return _reply(query, 0, question.raw, record), fact


def _answer_fake(
    query: bytes, question: _Question, name: str, names: FakeNames
) -> tuple[bytes, DnsFact]:
    address = names.address(name)
    if address is None:
        fact = DnsFact(outcome="exhausted", name=name, type="A")
        return _reply(query, _SERVFAIL, question.raw), fact
    record = _record(_TYPE_A, IPv4Address(address).packed)
    fact = DnsFact(outcome="answered", name=name, type="A", address=address)
    return _reply(query, 0, question.raw, record), fact
