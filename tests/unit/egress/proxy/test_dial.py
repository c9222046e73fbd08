"""Where a decision leads, and what is believed on the way."""

from pathlib import Path

import pytest

from egress_world import TestAuthority
from handiwork.egress.control import ProxySettings
from handiwork.egress.proxy import dial
from handiwork.egress.proxy.dial import Destination, Dialer, DialError, destination_of
from handiwork.model.policy import Decision, EgressRequest, ServiceTarget

REQUEST = EgressRequest(scheme="https", host="a.example.org", port=443, method="GET", path="/")


def test_a_public_name_is_resolved_and_a_service_is_not():
    assert destination_of(REQUEST, Decision(allowed=True, rules=("r",))) == Destination(
        "https", "a.example.org", 443
    )
    service = ServiceTarget(name="s", address="10.0.0.1", port=8443, trust_anchor="PEM")
    decision = Decision(allowed=True, rules=("r",), service=service)
    assert destination_of(REQUEST, decision) == Destination(
        "https", "a.example.org", 443, "10.0.0.1", 8443, "PEM"
    )


def test_addresses_of_this_host_are_known():
    assert dial._is_ours("127.0.0.1")
    assert not dial._is_ours("93.184.216.34")
    assert not dial._is_ours("2606:2800:220:1::1")


async def test_one_refused_address_refuses_the_name():
    hosts = {"a.example.org": ("93.184.216.34", "10.0.0.1")}
    dialer = Dialer(ProxySettings(keys="", audit="", hosts=hosts))
    with pytest.raises(DialError, match="private") as told:
        await dialer._checked("a.example.org")
    assert (told.value.status, told.value.guard) == (403, True)
    assert await dialer._checked("93.184.216.34") == ("93.184.216.34",)
    dialer.close()


async def test_a_broken_trust_anchor_is_a_fault_and_a_good_one_is_kept(tmp_path: Path):
    dialer = Dialer(ProxySettings(keys="", audit=""))
    with pytest.raises(DialError, match="trust anchor"):
        dialer._context(Destination("https", "a", 443, "10.0.0.1", 1, "nonsense"))
    good = Destination("https", "a", 443, "10.0.0.1", 1, TestAuthority(tmp_path).pem)
    context = dialer._context(good)
    assert dialer._context(good) is context
    assert context.check_hostname
    dialer.close()
