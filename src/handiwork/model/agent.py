"""What the operator decides for an agent of the brain: never the brain itself."""

from datetime import datetime

import msgspec

from handiwork.model.ids import DEFAULT_TENANT


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Tier and policy of one agent, written by `PUT /api/agents/{id}`; empty: the environment's."""

    agent_id: str
    tenant: str = DEFAULT_TENANT
    tier: str = ""
    policy: str = ""
    updated_at: datetime
