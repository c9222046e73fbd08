"""`/metrics`: behind the admin key on TCP, in the format that scrapers read."""

from datetime import UTC, datetime
from pathlib import Path

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from api_stand_in import Served, served_api
from handiwork.model.session import Session, SessionState
from handiwork.observe.metrics import Metrics

NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def test_it_tells_what_was_counted_and_what_is_stored(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.interrupt()
    async with (
        served_api(tmp_path, metrics=metrics) as served,
        httpx2.AsyncClient(
            base_url=served.url, headers=served.authorization, trust_env=False
        ) as http,
    ):
        await served.store.sessions.save(
            Session(
                id="sesn_1",
                environment_id="env_1",
                state=SessionState.ACTIVE,
                created_at=NOW,
                updated_at=NOW,
            )
        )
        await http.post("/api/sandboxes", json={})
        answer = await http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["handiwork_interrupts_total",] == 1
    assert samples["handiwork_sessions", "active"] == 1
    assert samples["handiwork_tasks",] >= 1
    assert samples["handiwork_sandboxes", "running", "namespace"] == 1


async def test_it_needs_the_admin_key(served: Served) -> None:
    async with httpx2.AsyncClient(base_url=served.url, trust_env=False) as http:
        assert (await http.get("/metrics")).status_code == 401
