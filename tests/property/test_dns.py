"""Hostile queries: always an answer or silence, never more than was asked, never a denied name."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from handiwork.egress.dns import FakeNames, answer

GOOD = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03api\x04test\x00\x00\x01\x00\x01"
labels = st.lists(st.binary(min_size=1, max_size=63), max_size=6)
names = st.lists(st.text("ab1-", min_size=1, max_size=3), min_size=1, max_size=3).map(".".join)


@st.composite
def queries(draw):
    raw = bytearray(GOOD)
    for _ in range(draw(st.integers(0, 4))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return bytes(raw) + draw(st.binary(max_size=20))


@given(st.binary(max_size=600) | queries())
def test_any_bytes_get_a_small_reply_or_none(query):
    asked = []
    reply, fact = answer(query, FakeNames(), lambda name: bool(asked.append(name)))
    assert len(reply) <= len(query) + 16 + 12
    if reply:
        assert reply[:2] == query[:2]
        assert reply[2] & 0x80
    assert fact.outcome in ("denied", "malformed") or fact.name.endswith("localhost")
    assert fact.address == ""


@given(labels, st.integers(0, 65535), st.integers(0, 65535))
def test_only_addresses_of_permitted_names_are_told(parts, kind, klass):
    body = b"".join(bytes([len(part)]) + part for part in parts) + b"\0"
    query = GOOD[:12] + body + struct.pack(">2H", kind, klass)
    map_ = FakeNames()
    _, fact = answer(query, map_, lambda name: True)
    if fact.address:
        assert (kind, klass) == (1, 1)
        assert map_.name(fact.address) == fact.name


@given(st.lists(names, max_size=60), st.binary(max_size=4))
def test_names_and_addresses_are_one_to_one(asked, seed):
    map_ = FakeNames(network="198.18.0.0/26", limit=30, seed=seed)
    given = {}
    for name in asked:
        address = map_.address(name)
        if address is None:
            assert len(given) == 30
        else:
            assert given.setdefault(name, address) == address
    assert len(set(given.values())) == len(given)
