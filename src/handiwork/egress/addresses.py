"""Which addresses the proxy never dials on a guest's behalf, however they are written.

A `service` rule names its address and does not come through here. The list is our own, because
`ipaddress.is_global` differs between Python releases and knows no metadata services.
"""

from collections.abc import Collection, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

_DENIED_V4 = tuple(
    (IPv4Network(network), why)
    for network, why in (
        ("168.63.129.16/32", "a cloud's metadata address"),
        ("169.254.169.254/32", "a cloud's metadata address"),
        ("100.100.100.200/32", "a cloud's metadata address"),
        ("192.0.0.192/32", "a cloud's metadata address"),
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments"),
        ("192.31.196.0/24", "anycast of name service"),
        ("192.52.193.0/24", "multicast tunnelling"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "anycast of name service"),
        ("198.18.0.0/15", "benchmarking, here the guests' fake addresses"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved or broadcast"),
    )
)
_DOCUMENTATION = tuple(
    ip_network(network)
    for network in (
        "192.0.2.0/24",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "2001:db8::/32",
        "3fff::/20",
    )
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_DENIED_V6 = tuple(
    (IPv6Network(network), why)
    for network, why in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/96", "an IPv4 address in compatible form"),
        ("::ffff:0:0:0/96", "an IPv4 address in translated form"),
        ("64:ff9b:1::/48", "an IPv4 address behind a local translator"),
        ("100::/64", "discard-only"),
        ("2001::/32", "an IPv4 address in Teredo form"),
        ("2001::/23", "protocol assignments"),
        ("2002::/16", "an IPv4 address in 6to4 form"),
        ("2620:4f:8000::/48", "anycast of name service"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)


def _unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that a mapped or NAT64 form is dialled as."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _range_reason(address: IPv4Address | IPv6Address) -> str | None:
    if isinstance(address, IPv4Address):
        return next((why for network, why in _DENIED_V4 if address in network), None)
    for network, why in _DENIED_V6:
        if address in network:
            return why
    if address not in _GLOBAL_UNICAST:
        return "not global unicast"
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        return "an IPv4 address in ISATAP form"
    return None


def refuse(
    address: str, *, exceptions: Sequence[str] = (), own: Collection[str] = ()
) -> str | None:
    """Return why this address must not be dialled, or None when it may be.

    `own` are the host's addresses. `exceptions` are networks (CIDR) that a policy names; they
    open the documentation ranges only, nothing else of the deny set.
    """
    try:
        parsed = ip_address(address if "%" not in address else "")
    except ValueError:
        return f"{address[:80]!r} is not an IP address"
    target = _unwrapped(parsed)
    if any(_unwrapped(ip_address(mine.partition("%")[0])) == target for mine in own):
        return f"{parsed} is this host's own address"
    why = _range_reason(target)
    if why is not None:
        return f"{parsed} is {why}"
    if any(target in network for network in _DOCUMENTATION):
        if any(target in ip_network(network, strict=False) for network in exceptions):
            return None
        return f"{parsed} is for documentation"
    return None
