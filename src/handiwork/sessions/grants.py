"""What a sandbox may do today: its policies, and the secrets that it is given."""

from collections.abc import Mapping

import msgspec

from handiwork.model.egress import EgressBinding, EgressGrant
from handiwork.model.errors import PolicyDeniedError, SandboxUnavailableError
from handiwork.model.sandbox import SandboxRecord, is_weaker
from handiwork.sessions.credentials import Credentials
from handiwork.sessions.policies import Layers, PolicyResolver

LOOKS = 16
"""So often they are looked up again before it is given up."""


class Grants:
    """Looks them up. `changes` counts those of policies or secrets."""

    def __init__(self, policies: PolicyResolver, credentials: Credentials) -> None:
        self._policies = policies
        self._credentials = credentials
        self.changes = 0

    async def today(self, record: SandboxRecord) -> tuple[Layers, EgressGrant]:
        """Return its policies and its grant; looked up again where they changed meanwhile.

        PolicyDeniedError where one of them wants a stronger tier than it has.
        """
        for _ in range(LOOKS):
            changes = self.changes
            layers = await self._policies.layers(record)
            grant = await self._policies.grant(layers)
            check_tier(record, grant)
            placeholders = await self._credentials.standing(record)
            if changes == self.changes:
                return layers, msgspec.structs.replace(grant, placeholders=placeholders)
        raise SandboxUnavailableError("policies or secrets change all the time: try again")


def check_minimum(record: SandboxRecord, minimum: str) -> None:
    """PolicyDeniedError where a sandbox is of a tier weaker than the settings' minimum."""
    if is_weaker(record.tier, minimum):
        raise PolicyDeniedError(
            f"the tier {record.tier!r} is weaker than sandbox.minimum_tier = {minimum!r}",
            rule_id="sandbox.minimum_tier",
        )


def check_tier(record: SandboxRecord, grant: EgressGrant) -> None:
    """PolicyDeniedError names the policy that wants a stronger tier than a sandbox has."""
    for layer in grant.layers:
        name, minimum = layer.policy.name, layer.policy.minimum_tier
        if is_weaker(record.tier, minimum):
            raise PolicyDeniedError(
                f"the tier {record.tier!r} is weaker than minimum_tier = {minimum!r}"
                f" of the {layer.scope} policy {name!r}",
                rule_id=f"{layer.scope}:{name}/minimum_tier",
            )


def variables(record: SandboxRecord, grant: EgressGrant) -> Mapping[str, str]:
    """Return what every program in it finds in its environment: secrets as placeholders."""
    return {**{one.variable: one.text for one in grant.placeholders}, **record.env}


def binding(record: SandboxRecord) -> EgressBinding:
    """Return who its way out says that it is."""
    return EgressBinding(
        id=record.id,
        kind="sandbox",
        tenant=record.tenant,
        sandbox_id=record.id,
        session_id=record.session_id,
        agent_id=record.agent_id,
        ca_id=record.session_id or record.id,
        ca_generation=record.ca_generation,
    )
