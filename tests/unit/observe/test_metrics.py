"""The counters: what is counted where, in bounded labels, in a registry of their own."""

from datetime import UTC, datetime, timedelta

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from handiwork.model.session import Waiting, WaitingKind
from handiwork.observe.metrics import CUSTOM, STOCK_TOOLS, Census, Metrics
from handiwork.tools.registry import STOCK

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def read(metrics: Metrics, census: Census | None = None) -> dict[str, float]:
    """Every sample by its name and labels, as a scraper would read them."""
    text = metrics.text(census or Census(), NOW).decode()
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return read(metrics)[f"handiwork_{name}{sorted(labels.items())}"]


def test_a_call_is_counted_by_tool_and_outcome() -> None:
    metrics = Metrics()
    metrics.call_began()
    metrics.call_began()
    assert value(metrics, "tool_calls_running") == 2
    metrics.call_ended("bash", 0.3)
    metrics.call("bash", "ok")
    metrics.call_ended("their_tool", 2)
    metrics.call("their_tool", "error")
    assert value(metrics, "tool_calls_running") == 0
    assert value(metrics, "tool_calls_total", tool="bash", outcome="ok") == 1
    assert value(metrics, "tool_calls_total", tool=CUSTOM, outcome="error") == 1
    assert value(metrics, "tool_call_seconds_sum", tool=CUSTOM) == 2
    assert value(metrics, "tool_call_seconds_bucket", tool="bash", le="0.5") == 1
    assert value(metrics, "tool_call_seconds_bucket", tool="bash", le="0.1") == 0


def test_work_is_counted() -> None:
    metrics = Metrics()
    metrics.poll("empty")
    metrics.claim(0.2)
    metrics.claim(-5)
    metrics.claim(None)
    metrics.lease_held()
    metrics.lease_held()
    metrics.lease_ended()
    metrics.lease_lost()
    metrics.post("retried")
    metrics.interrupt()
    metrics.straggling(3)
    assert value(metrics, "polls_total", outcome="empty") == 1
    assert value(metrics, "claims_total") == 3
    assert value(metrics, "claim_seconds_count") == 2
    assert value(metrics, "claim_seconds_sum") == pytest.approx(0.2)
    assert value(metrics, "leases_held") == 1
    assert value(metrics, "leases_lost_total") == 1
    assert value(metrics, "result_posts_total", outcome="retried") == 1
    assert value(metrics, "interrupts_total") == 1
    assert value(metrics, "tool_stragglers") == 3


def test_pools_are_told() -> None:
    metrics = Metrics()
    metrics.pooled("namespace", 3)
    metrics.wanted("namespace", stood_ready=True)
    metrics.wanted("namespace", stood_ready=False)
    metrics.wanted("namespace", stood_ready=False)
    assert value(metrics, "pool_sandboxes", tier="namespace") == 3
    assert value(metrics, "pool_wanted_total", tier="namespace", outcome="ready") == 1
    assert value(metrics, "pool_wanted_total", tier="namespace", outcome="missed") == 2


def test_waits_are_told_by_kind_with_the_age_of_the_oldest_until_they_are_over() -> None:
    metrics = Metrics()
    for session, minutes in (("a", 2), ("b", 5)):
        since = NOW - timedelta(minutes=minutes)
        wait = Waiting(kind=WaitingKind.CONFIRMATION, reason="r", since=since)
        metrics.waits(session, [wait])
    assert value(metrics, "session_waits", kind="confirmation") == 2
    assert value(metrics, "session_wait_oldest_seconds", kind="confirmation") == 300
    assert value(metrics, "session_waits", kind="brain") == 0
    metrics.waits("b", [])
    assert value(metrics, "session_wait_oldest_seconds", kind="confirmation") == 120


def test_a_state_that_nothing_is_in_any_more_is_gone() -> None:
    metrics = Metrics()
    first = Census(sessions={"active": 2}, sandboxes={("running", "namespace"): 1})
    found = read(metrics, first)
    assert found["handiwork_sessions[('state', 'active')]"] == 2
    assert found["handiwork_sandboxes[('state', 'running'), ('tier', 'namespace')]"] == 1
    again = read(metrics, Census(sessions={"lost": 1}))
    assert not any("active" in name or "running'" in name for name in again)
    assert again["handiwork_sessions[('state', 'lost')]"] == 1


@given(st.lists(st.text(max_size=20), max_size=30))
def test_names_that_others_choose_make_no_labels(names: list[str]) -> None:
    metrics = Metrics()
    for name in names:
        metrics.call(name, "ok")
        metrics.call_ended(name, 1)
    told = [line for line in metrics.text(Census(), NOW).splitlines() if b"tool=" in line]
    allowed = {tool.encode() for tool in (*STOCK_TOOLS, CUSTOM)}
    assert {line.split(b'tool="')[1].split(b'"')[0] for line in told} <= allowed


def test_the_stock_tools_are_those_that_are_served() -> None:
    assert STOCK_TOOLS == STOCK


def test_the_registry_of_the_library_is_left_alone() -> None:
    Metrics().interrupt()
    Metrics().interrupt()
    assert b"handiwork" not in prometheus_client.generate_latest()
