"""What the operator decides for an agent of the brain: never the brain itself."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from handiwork.model.ids import DEFAULT_TENANT
from handiwork.model.sandbox import Limits


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for one agent of one environment, written by `PUT /api/agents/{id}`.

    An empty field: the environment's. Another environment's brain may name an agent of the same id;
    these settings are not its. An empty `environment_id` is of a version that did not keep it.
    `variables` name the secrets (of the secrets store) that placeholders stand for in the
    environment of its sessions' sandboxes. `size` is of `model.sandbox.SIZES`, `limits` are exact;
    both hold for sandboxes made from then on, as `image` does.
    """

    environment_id: str = ""
    agent_id: str
    tenant: str = DEFAULT_TENANT
    tier: str = ""
    policy: str = ""
    image: str = ""
    size: str = ""
    limits: Limits | None = None
    variables: Mapping[str, str] = msgspec.field(default_factory=dict)
    updated_at: datetime
