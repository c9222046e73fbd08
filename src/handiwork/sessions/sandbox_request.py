"""What is asked of a new sandbox, and the record that it begins with."""

import secrets
from collections.abc import Mapping
from datetime import datetime

import msgspec

from handiwork.config import SandboxSettings
from handiwork.model.ids import new_id
from handiwork.model.sandbox import Limits, SandboxRecord, SandboxState


class SandboxRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked for. Empty tier and image: the operator's default."""

    tier: str = ""
    image: str = ""
    policy: str = ""
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    metadata: Mapping[str, str] = msgspec.field(default_factory=dict)
    limits: Limits | None = None
    session_id: str = ""
    agent_id: str = ""


def recorded(
    request: SandboxRequest, settings: SandboxSettings, now: datetime, origin: str = ""
) -> SandboxRecord:
    """Return the record of a sandbox that is about to be made, under a new id."""
    return SandboxRecord(
        id=new_id("sbx", secrets.token_bytes(15)),
        session_id=request.session_id,
        agent_id=request.agent_id,
        tier=request.tier or settings.tier,
        image=request.image or settings.image,
        policy=request.policy,
        state=SandboxState.STARTING,
        env=request.env,
        metadata=request.metadata,
        limits=request.limits,
        origin=origin,
        created_at=now,
        updated_at=now,
    )
