from ipaddress import IPv4Address, IPv6Address

import pytest

from handiwork.egress.addresses import refuse

DENIED_V4 = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255"),
    *("127.0.0.1", "127.255.255.254", "169.254.0.1", "172.16.0.1", "172.31.255.255"),
    *("192.0.0.8", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255", "224.0.0.1"),
    *("239.255.255.255", "240.0.0.1", "255.255.255.255"),
    # Metadata services.
    *("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    # Documentation.
    *("192.0.2.1", "198.51.100.7", "203.0.113.255"),
]
ALLOWED = [
    *("1.1.1.1", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1", "172.15.0.1"),
    *("172.32.0.1", "192.167.0.1", "198.17.0.1", "198.20.0.1", "223.255.255.255"),
    *("2606:4700::1111", "2a00:1450::1"),
]


def _disguises(address):
    plain = int(IPv4Address(address))
    yield f"::ffff:{address}"
    yield f"::{address}"
    yield f"::ffff:0:{address}"
    yield f"64:ff9b::{address}"
    yield f"64:ff9b:1::{address}"
    yield str(IPv6Address((0x2002 << 112) | (plain << 80)))
    yield str(IPv6Address((0x20010000 << 96) | (plain ^ 0xFFFFFFFF)))
    yield str(IPv6Address((0x20010DB8 << 96) | (0x00005EFE << 32) | plain))
    yield str(IPv6Address((0x2A001450 << 96) | (0x02005EFE << 32) | plain))


@pytest.mark.parametrize("address", DENIED_V4)
def test_a_denied_address_is_refused_in_every_disguise(address):
    assert refuse(address)
    for disguise in _disguises(address):
        assert refuse(disguise), disguise


@pytest.mark.parametrize("address", ALLOWED)
def test_public_addresses_pass(address):
    assert refuse(address) is None


@pytest.mark.parametrize(
    "address",
    [
        *("::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254"),
        *("ff02::1", "100::1", "2001::1", "2001:db8::1", "3fff::1", "2002::1", "4000::1"),
        *("5f00::1", "64:ff9b:1::8.8.8.8", "2001:10::1"),
    ],
)
def test_special_ipv6_is_refused(address):
    assert refuse(address)


def test_a_public_address_behind_nat64_or_mapped_is_judged_as_itself():
    assert refuse("64:ff9b::1.1.1.1") is None
    assert refuse("::ffff:1.1.1.1") is None


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost",
        "127.1",
        "0177.0.0.1",
        "0x7f000001",
        "2130706433",
        "fe80::1%eth0",
        "1.1.1.1 ",
    ],
)
def test_what_is_no_address_is_refused(address):
    assert "not an IP address" in refuse(address)


def test_the_hosts_own_addresses_are_refused_in_disguise_too():
    own = ("8.8.4.4", "2a00:1450::5", "fe80::1%eth0")
    assert "own" in refuse("8.8.4.4", own=own)
    assert "own" in refuse("::ffff:8.8.4.4", own=own)
    assert "own" in refuse("2a00:1450:0::5", own=own)
    assert refuse("8.8.8.8", own=own) is None


def test_an_exception_opens_documentation_ranges_only():
    assert refuse("192.0.2.9", exceptions=("192.0.2.0/24",)) is None
    assert refuse("2001:db8::9", exceptions=("2001:db8::/32",)) is None
    assert refuse("192.0.2.9", exceptions=("203.0.113.0/24",))
    assert refuse("10.0.0.1", exceptions=("10.0.0.0/8", "0.0.0.0/0"))
    assert refuse("127.0.0.1", exceptions=("127.0.0.1/32",))
