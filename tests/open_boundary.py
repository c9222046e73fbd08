"""An egress boundary that remembers what it was asked; nothing goes through it."""

from handiwork.egress.protocol import EgressSocket
from handiwork.model.egress import EgressBinding, EgressGrant


class OpenBoundary:
    def __init__(self) -> None:
        self.bindings: dict[str, EgressBinding] = {}
        self.grants: dict[str, EgressGrant] = {}
        self.broken: Exception | None = None

    async def open(self, binding: EgressBinding, grant: EgressGrant) -> EgressSocket:
        if self.broken is not None:
            raise self.broken
        assert binding.id not in self.bindings
        self.bindings[binding.id] = binding
        self.grants[binding.id] = grant
        return EgressSocket(binding=binding, path=f"/run/{binding.id}", ca_certificate="PEM")

    async def update(self, binding_id: str, grant: EgressGrant) -> None:
        assert binding_id in self.bindings
        self.grants[binding_id] = grant

    async def close(self, binding_id: str) -> None:
        self.bindings.pop(binding_id, None)

    async def seal_key(self, tenant: str) -> bytes:
        return bytes(32)
