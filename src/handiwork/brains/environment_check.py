"""Is this the key of that environment: asked of the brain without taking any work from it."""

from typing import Any

import msgspec

from handiwork.brains.access import Access, body_of, told


class Proven(msgspec.Struct, frozen=True, kw_only=True):
    """What the queue of an environment holds; None where the brain does not say."""

    depth: int | None
    pending: int | None
    oldest_queued_at: str | None
    workers_polling: int | None


async def prove(*, environment_id: str, environment_key: str, base_url: str) -> Proven:
    """Return how the queue stands, once the key is proven to be one that may claim from it.

    A poll is the proof, where the queue is empty. Where work waits a poll would take an item from
    whoever serves it, for the reclaim time; then the queue is listed instead, which a brain lets
    environment keys alone do. UnauthorizedError, NotFoundError, BrainRefusedError: it is not.
    """
    access = Access(environment_key=environment_key, base_url=base_url)
    try:
        work = access.environment.beta.environments.work
        with told("read the queue"):
            stats = body_of(await work.with_raw_response.stats(environment_id), "queue") or {}
        found = Proven(
            depth=_count(stats.get("depth")),
            pending=_count(stats.get("pending")),
            oldest_queued_at=_text(stats.get("oldest_queued_at")),
            workers_polling=_count(stats.get("workers_polling")),
        )
        with told("poll the queue"):
            if found.depth == 0:
                body_of(await work.with_raw_response.poll(environment_id), "poll")
            else:
                body_of(await work.with_raw_response.list(environment_id, limit=1), "queue")
        return found
    finally:
        await access.close()


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _text(value: Any) -> str | None:
    return value[:64] if isinstance(value, str) else None
