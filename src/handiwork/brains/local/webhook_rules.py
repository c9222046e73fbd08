"""What is told by webhooks, where to, and how often one delivery is tried. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

MAX_ATTEMPTS = 3
FIRST_DELAY_SECONDS = 5.0
MAX_DELAY_SECONDS = 120.0
FAILING_FOR = timedelta(hours=24)
"""An endpoint that answered nothing with 2xx for so long is disabled."""
MAX_URL = 2048

TYPES = frozenset(
    {
        "session.created",
        "session.updated",
        "session.running",
        "session.status_run_started",
        "session.idled",
        "session.status_idled",
        "session.requires_action",
        "session.budget_reached",
        "session.status_rescheduled",
        "session.archived",
        "session.status_terminated",
        "session.deleted",
    }
)
"""The types of the protocol's table that this server sends."""

_TOLD: Mapping[str, tuple[str, ...]] = {
    "session.status_running": ("session.running", "session.status_run_started"),
    "session.status_idle": ("session.idled", "session.status_idled"),
    "session.status_rescheduled": ("session.status_rescheduled",),
    "session.status_terminated": ("session.archived", "session.status_terminated"),
    "session.updated": ("session.updated",),
}
_REASONS = {
    "requires_action": "session.requires_action",
    "budget_reached": "session.budget_reached",
}


class Verdict(StrEnum):
    """What follows from one attempt."""

    DONE = "done"
    AGAIN = "again"
    DROPPED = "dropped"
    DISABLED = "disabled"


def types_of(events: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the webhook types that a session's events are told as, in order."""
    told: list[str] = []
    for event in events:
        told += _TOLD.get(event["type"], ())
        reason = _REASONS.get((event.get("stop_reason") or {}).get("type", ""))
        if reason is not None:
            told.append(reason)
    return told


def check_url(url: str, direct: Collection[str] = ()) -> str:
    """Return the URL's host; ValueError unless it is https, or of a `direct` host."""
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"url: must be plain ASCII of at most {MAX_URL} characters")
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("url: is not a URL") from None
    if not host or parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("url: must have a host, and neither user, password nor fragment")
    if parts.scheme == "https" or (parts.scheme == "http" and host in direct):
        return host
    raise ValueError("url: must be https, or http to a host of local_brain.webhook_hosts")


def delay_seconds(attempts: int, jitter: float) -> float:
    """Return how long to wait after so many attempts; `jitter` is random, from 0 up to 1."""
    grown = FIRST_DELAY_SECONDS * 4.0 ** max(0, attempts - 1) * (1.0 + jitter)
    return min(max(grown, FIRST_DELAY_SECONDS), MAX_DELAY_SECONDS)


def verdict(status: int | None, attempts: int) -> Verdict:
    """Judge the answer to the attempt that was the `attempts`-th; None: there was no answer."""
    if status is not None and 200 <= status < 300:
        return Verdict.DONE
    if status is not None and 300 <= status < 400:
        return Verdict.DISABLED
    return Verdict.AGAIN if attempts < MAX_ATTEMPTS else Verdict.DROPPED


def wants(endpoint: Mapping[str, Any], kind: str) -> bool:
    """Say whether an endpoint is to hear of a type."""
    wanted: Sequence[str] = endpoint["event_types"]
    return endpoint["status"] == "enabled" and kind in wanted
