"""Who an egress socket speaks for, and what it is granted."""

from typing import Literal

import msgspec

from handiwork.model.ids import DEFAULT_TENANT
from handiwork.model.placeholder import Placeholder
from handiwork.model.policy import PolicyLayer
from handiwork.model.secret import SealedSecret


class EgressBinding(msgspec.Struct, frozen=True, kw_only=True):
    """The identity of one egress socket; the socket *is* the identity, no header can change it.

    `ca_id` and `ca_generation` select the certificate authority: the session's id, or the
    sandbox's where there is no session; a fork raises the generation.
    """

    id: str
    kind: Literal["sandbox", "tool", "hook"]
    tenant: str = DEFAULT_TENANT
    sandbox_id: str = ""
    session_id: str = ""
    agent_id: str = ""
    tool: str = ""
    tool_use_id: str = ""
    ca_id: str
    ca_generation: int = 1


class EgressGrant(msgspec.Struct, frozen=True, kw_only=True):
    """What the socket may do: policy layers, the sealed secrets that their rules name, and the
    placeholders that mean something on it.
    """

    layers: tuple[PolicyLayer, ...]
    secrets: tuple[SealedSecret, ...] = ()
    placeholders: tuple[Placeholder, ...] = ()
