"""A grant in force: which ports it could permit, and that secrets open only for their hosts."""

import os
from pathlib import Path

import pytest

from egress_world import grant, layer
from handiwork.egress.proxy.grants import NOTHING, Granted
from handiwork.egress.secrets import Opener
from handiwork.model.egress import EgressGrant
from handiwork.model.errors import SecretMissingError
from handiwork.model.injection import HeaderInjection
from handiwork.model.placeholder import ENTROPY_BYTES, Placeholder, new_placeholder
from handiwork.model.policy import AllowRule, DenyRule, EgressRequest, InjectRule, Match
from handiwork.model.sealing import ENTROPY_BYTES as SEAL_BYTES
from handiwork.model.sealing import seal

SECRET = "sk-test-0123456789"


@pytest.fixture
def opener(tmp_path: Path):
    return Opener(tmp_path / "keys")


def sealed(opener: Opener, *hosts: str, tenant: str = "default"):
    public = opener.public_key(tenant)
    return seal(
        public,
        tenant=tenant,
        name="key",
        version=1,
        hosts=hosts,
        value=SECRET,
        entropy=os.urandom(SEAL_BYTES),
    )


def decided(granted: Granted, host: str = "a.example.org"):
    request = EgressRequest(scheme="https", host=host, port=443, method="GET", path="/")
    return granted.policy.decide(request)


RULE = InjectRule(
    id="i",
    match=Match(hosts=("*.example.org",)),
    inject=(HeaderInjection(header="Authorization", value="Bearer ${secret:key}"),),
)


def test_the_ports_that_some_rule_could_permit(opener: Opener):
    rules = (
        AllowRule(id="a", match=Match(hosts=("a",), schemes=("https", "http"))),
        AllowRule(id="b", match=Match(hosts=("b",), ports=(8443,))),
        DenyRule(id="c", match=Match(hosts=("c",), ports=(22,))),
    )
    assert Granted(grant(*rules), "default", opener).ports == {443, 80, 8443}


def test_nothing_is_injected_where_no_rule_says_so(opener: Opener):
    granted = Granted(grant(AllowRule(id="a", match=Match(hosts=("*",)))), "default", opener)
    assert granted.injected(decided(granted), "a.example.org") is NOTHING


def test_the_value_is_opened_once_and_not_shown(opener: Opener):
    granted = Granted(grant(RULE, secrets=(sealed(opener, "*.example.org"),)), "default", opener)
    found = granted.injected(decided(granted), "a.example.org")
    assert found.written.headers == ((b"authorization", b"Bearer " + SECRET.encode()),)
    assert found.names == ("key",)
    assert granted.injected(decided(granted), "a.example.org") is found
    assert SECRET not in repr(found) + repr(granted)


@pytest.mark.parametrize(
    ("hosts", "tenant"), [(("b.example.org",), "default"), (("*.example.org",), "other")]
)
def test_a_secret_of_another_host_or_tenant_is_missing(opener: Opener, hosts, tenant: str):
    secrets = (sealed(opener, *hosts, tenant=tenant),)
    granted = Granted(grant(RULE, secrets=secrets), "default", opener)
    with pytest.raises(SecretMissingError):
        granted.injected(decided(granted), "a.example.org")


def test_no_layer_has_no_port(opener: Opener):
    assert Granted(EgressGrant(layers=()), "default", opener).ports == frozenset()
    assert Granted(EgressGrant(layers=(layer(),)), "default", opener).ports == frozenset()


def test_a_placeholder_is_meant_for_its_hosts_and_foreign_elsewhere(opener: Opener):
    mine, other = (new_placeholder(byte * ENTROPY_BYTES) for byte in (b"m", b"o"))
    stands = Placeholder(variable="TOKEN", text=mine, sealed=sealed(opener, "a.example.org"))
    rule = AllowRule(id="a", match=Match(hosts=("*",)))
    granted = Granted(
        EgressGrant(layers=grant(rule).layers, placeholders=(stands,)), "default", opener
    )
    text = mine.encode()
    assert granted.meant((text, other.encode()), "a.example.org") == (text,)
    assert granted.meant((text,), "b.example.org") == ()
    assert granted.foreign((text, other.encode()))
    assert not granted.foreign((text,))
    assert not granted.foreign(())
    found = granted.injected(decided(granted), "a.example.org", (text,))
    assert found.filled([(b"x", b"<" + text + b">")]) == [(b"x", b"<" + SECRET.encode() + b">")]
    assert found.names == ("key",)
    assert SECRET not in repr(found)


def test_a_value_that_cannot_stand_in_a_header_is_not_opened(opener: Opener, monkeypatch):
    """Whoever sealed it may have checked nothing."""
    monkeypatch.setattr("handiwork.model.sealing.check_secret", lambda *_: None)
    text = new_placeholder(b"m" * ENTROPY_BYTES)
    public = opener.public_key("default")
    for value in ("a\r\nx-evil: 1", "ünïcode-value"):
        broken = seal(
            public,
            tenant="default",
            name="k",
            version=1,
            hosts=("a",),
            value=value,
            entropy=os.urandom(SEAL_BYTES),
        )
        stands = Placeholder(variable="TOKEN", text=text, sealed=broken)
        granted = Granted(EgressGrant(layers=(), placeholders=(stands,)), "default", opener)
        with pytest.raises(SecretMissingError, match="cannot stand in a header"):
            granted.injected(decided(granted, "a"), "a", (text.encode(),))
