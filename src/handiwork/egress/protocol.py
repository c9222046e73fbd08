"""The port of the egress boundary as the control plane sees it."""

from typing import Protocol

import msgspec

from handiwork.model.egress import EgressBinding, EgressGrant


class EgressSocket(msgspec.Struct, frozen=True, kw_only=True):
    """An open way out: the unix socket's path on the host, and the CA (PEM) its clients must trust."""

    binding: EgressBinding
    path: str
    ca_certificate: str


class Boundary(Protocol):
    """Opens and closes ways out. Whatever fails, the way out refuses."""

    async def open(self, binding: EgressBinding, grant: EgressGrant) -> EgressSocket:
        """Make the socket of a binding and hand it to the proxy; ConfigError for a bad grant."""
        ...

    async def update(self, binding_id: str, grant: EgressGrant) -> None:
        """Replace what a live binding may do; holds for the next request on every connection."""
        ...

    async def close(self, binding_id: str) -> None:
        """Close the socket and every connection that came through it. No-op when it is not open."""
        ...

    async def seal_key(self, tenant: str) -> bytes:
        """Return the X25519 public key (32 bytes) that secrets of the tenant are sealed to."""
        ...
