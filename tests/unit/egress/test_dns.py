import socket
import struct

import pytest

from handiwork.egress.dns import TTL_SECONDS, FakeNames, answer

A, AAAA, TXT, HTTPS, SVCB, ANY = 1, 28, 16, 65, 64, 255


def _query(name="api.test", kind=A, klass=1, flags=0x0100, counts=(1, 0, 0, 0), tail=b""):
    labels = b"".join(bytes([len(part)]) + part for part in name.encode("latin-1").split(b"."))
    head = struct.pack(">6H", 0x1234, flags, *counts)
    return head + labels + b"\0" + struct.pack(">2H", kind, klass) + tail


def _ask(query, may_reach=lambda name: name == "api.test", names=None):
    return answer(query, FakeNames() if names is None else names, may_reach)


def _code(reply):
    ident, flags, *_ = struct.unpack_from(">6H", reply)
    assert ident == 0x1234
    assert flags & 0x8000
    return flags & 15


def test_a_permitted_name_gets_a_fake_address():
    names = FakeNames()
    reply, fact = _ask(_query(), names=names)
    assert _code(reply) == 0
    pointer, kind, klass, ttl, size = struct.unpack(">3HIH", reply[-16:-4])
    assert (pointer, kind, klass, ttl, size) == (0xC00C, A, 1, TTL_SECONDS, 4)
    assert socket.inet_ntoa(reply[-4:]) == fact.address
    assert fact.address.startswith(("198.18.", "198.19."))
    assert names.name(fact.address) == "api.test"
    assert (fact.outcome, fact.name, fact.type) == ("answered", "api.test", "A")


def test_the_question_comes_back_as_it_was_written():
    reply, fact = _ask(_query("aPi.TeSt"))
    assert b"\3aPi\4TeSt\0" in reply
    assert fact.name == "api.test"


@pytest.mark.parametrize("kind", [AAAA, TXT, HTTPS, SVCB, ANY, 2, 12, 999])
def test_any_other_type_of_a_permitted_name_has_no_data(kind):
    reply, fact = _ask(_query(kind=kind))
    assert _code(reply) == 0
    assert struct.unpack_from(">6H", reply)[3] == 0
    assert fact.outcome == "nodata"


@pytest.mark.parametrize(
    "name",
    [
        *("evil.test", "data.api.test", "test", "1.2.3.4", "0x7f.1", "a b.test", "é.test"),
        *("-a.test", "xn--a.test"),
    ],
)
def test_other_names_do_not_exist(name):
    for kind in (A, AAAA, TXT):
        reply, fact = _ask(_query(name, kind))
        assert _code(reply) == 3
        assert fact.outcome == "denied"


def test_a_dot_inside_a_label_makes_no_other_name():
    query = struct.pack(">6H", 0x1234, 0x0100, 1, 0, 0, 0) + b"\x08api.test\0\0\1\0\1"
    reply, fact = _ask(query)
    assert (_code(reply), fact.outcome) == (3, "denied")


def test_localhost_is_the_guest_itself():
    reply, _ = _ask(_query("localhost"))
    assert reply.endswith(bytes([127, 0, 0, 1]))
    reply, _ = _ask(_query("x.localhost", AAAA))
    assert reply.endswith(bytes(15) + b"\1")
    assert _ask(_query("localhost", TXT))[1].outcome == "nodata"


@pytest.mark.parametrize("query", [b"", b"\x12\x34", bytes(11), _query(flags=0x8100)])
def test_what_is_no_query_gets_silence(query):
    reply, fact = _ask(query)
    assert reply == b""
    assert fact.outcome == "malformed"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (_query(counts=(2, 0, 0, 0)), 1),
        (_query(counts=(0, 0, 0, 0)), 1),
        (_query(counts=(1, 1, 0, 0)), 1),
        (_query(counts=(1, 0, 1, 0)), 1),
        (_query()[:-1], 1),
        (_query()[:14], 1),
        (_query(tail=bytes(5000)), 1),
        (struct.pack(">6H", 0x1234, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1", 1),
        (struct.pack(">6H", 0x1234, 0, 1, 0, 0, 0) + b"\3api\xc0\x0c\0\1\0\1", 1),
        (struct.pack(">6H", 0x1234, 0, 1, 0, 0, 0) + b"\x3fa" * 80 + b"\0\0\1\0\1", 1),
        (_query(flags=0x2800), 4),
    ],
)
def test_malformed_queries_are_told_so(query, code):
    reply, fact = _ask(query)
    assert _code(reply) == code
    assert len(reply) == 12
    assert fact.outcome == "malformed"


def test_another_class_is_refused():
    assert _code(_ask(_query(klass=3))[0]) == 5


def test_an_extension_record_does_not_disturb():
    opt = b"\0" + struct.pack(">2HIH", 41, 4096, 0, 0)
    assert _ask(_query(counts=(1, 0, 0, 1), tail=opt))[1].outcome == "answered"


def test_no_address_ever_stands_for_two_names():
    names = FakeNames(network="198.18.0.0/24", limit=100)
    given = [names.address(f"h{number}.test") for number in range(100)]
    assert len(set(given)) == 100
    assert names.address("one.more") is None
    assert names.address("h0.test") == given[0]
    assert [names.name(address) for address in given] == [f"h{n}.test" for n in range(100)]


def test_a_full_map_is_told_as_our_failure():
    names = FakeNames(limit=1)
    names.address("first.test")
    reply, fact = _ask(_query(), names=names)
    assert (_code(reply), fact.outcome) == (2, "exhausted")


def test_the_same_seed_gives_the_same_address():
    assert FakeNames(seed=b"s").address("a.test") == FakeNames(seed=b"s").address("a.test")
    assert FakeNames(seed=b"s").address("a.test") != FakeNames(seed=b"t").address("a.test")


def test_sabotage_without_the_policy_any_name_resolves():
    assert _ask(_query("evil.test"), may_reach=lambda name: True)[1].outcome == "answered"
