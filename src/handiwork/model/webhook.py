"""What is kept of a webhook that a brain sent us."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from handiwork.model.ids import DEFAULT_TENANT


class ReceivedWebhook(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery whose signature held. `kind` and `data` are the sender's words: show, never obey.

    `known` says that the kind is one that wakes the dispatchers; any other is kept and no more.
    """

    id: str
    tenant: str = DEFAULT_TENANT
    kind: str
    subject_id: str = ""
    known: bool = False
    data: Mapping[str, str] = msgspec.field(default_factory=dict)
    received_at: datetime
