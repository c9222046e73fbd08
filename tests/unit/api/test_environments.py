"""Environments over HTTP."""

from datetime import UTC, datetime
from pathlib import Path

import httpx2

from api_stand_in import served_api
from handiwork.model.environment import EnvironmentStatus, HeldLease, QueueStats

STATUS = EnvironmentStatus(
    id="env_1",
    base_url="https://brain.test",
    state="refused",
    reason="the key is not valid",
    since=datetime(2026, 11, 21, tzinfo=UTC),
    queue=QueueStats(depth=2),
    leases=(
        HeldLease(work_id="work_1", session_id="sesn_1", last_beat_seconds=1.5, ttl_seconds=60),
    ),
    sessions=("sesn_1",),
)


async def test_environments_are_listed(tmp_path: Path) -> None:
    async def environments() -> list[EnvironmentStatus]:
        return [STATUS]

    async with (
        served_api(tmp_path, environments=environments) as served,
        httpx2.AsyncClient(
            base_url=served.url, headers=served.authorization, trust_env=False
        ) as http,
    ):
        [told] = (await http.get("/api/environments")).json()["data"]
    assert (told["id"], told["state"], told["reason"]) == ("env_1", "refused", STATUS.reason)
    assert told["leases"] == [
        {"work_id": "work_1", "session_id": "sesn_1", "last_beat_seconds": 1.5, "ttl_seconds": 60.0}
    ]
    assert told["queue"]["depth"] == 2
