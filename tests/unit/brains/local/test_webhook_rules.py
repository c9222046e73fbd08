"""What is told, where to, and how often it is tried."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.brains.local import webhook_rules as rules
from handiwork.brains.local.webhook_rules import Verdict


@given(st.integers(1, 10), st.floats(0, 1, exclude_max=True))
def test_delays_grow_with_jitter_within_the_protocols_bounds(attempts, jitter):
    delay = rules.delay_seconds(attempts, jitter)
    assert 5 <= delay <= 120
    assert rules.delay_seconds(attempts + 1, jitter) >= delay


def test_jitter_spreads_retries():
    assert rules.delay_seconds(1, 0.0) == 5.0
    assert rules.delay_seconds(1, 0.5) == 7.5
    assert timedelta(seconds=rules.delay_seconds(2, 0.9)) == timedelta(seconds=38)


@given(st.none() | st.integers(100, 599))
def test_no_delivery_is_tried_a_fourth_time(status):
    found = [rules.verdict(status, attempts) for attempts in (1, 2, 3)]
    assert found[2] is not Verdict.AGAIN
    if status is not None and 200 <= status < 300:
        assert found == [Verdict.DONE] * 3
    elif status is not None and 300 <= status < 400:
        assert found == [Verdict.DISABLED] * 3
    else:
        assert found == [Verdict.AGAIN, Verdict.AGAIN, Verdict.DROPPED]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook?x=1",
        "https://127.0.0.1:9000/hook",
        "http://127.0.0.1:9000/hook",
        "http://[::1]:1/",
    ],
)
def test_https_and_hosts_that_the_operator_wrote_down_are_taken(url):
    assert rules.check_url(url, {"127.0.0.1", "::1"}) in ("example.com", "127.0.0.1", "::1")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hook",
        "http://example.com/",
        "http://127.0.0.1.example.com/",
        "http://10.0.0.1/",
        "ftp://localhost/",
        "https://",
        "https://user:password@example.com/",
        "https://example.com/#part",
        "https://example.com:99999/",
        "https://[broken/",
        "https://exämple.com/",
        "https://example.com/\r\nx: y",
        "https://example.com/ x",
        "https://example.com/" + "a" * 2048,
    ],
)
def test_other_urls_are_refused(url):
    with pytest.raises(ValueError, match="url:"):
        rules.check_url(url)


@given(st.text(max_size=60))
def test_any_url_is_plain_or_refused(text):
    for url in (text, f"https://{text}", f"http://{text}"):
        try:
            rules.check_url(url)
        except ValueError:
            continue
        assert url.isascii()
        assert " " not in url


def test_events_are_told_by_the_names_of_the_table():
    waits = {"type": "session.status_idle", "stop_reason": {"type": "requires_action"}}
    ends = {"type": "session.status_idle", "stop_reason": {"type": "end_turn"}}
    events = [{"type": "user.message"}, {"type": "session.status_running"}, waits, ends]
    assert rules.types_of(events) == [
        "session.running",
        "session.status_run_started",
        "session.idled",
        "session.status_idled",
        "session.requires_action",
        "session.idled",
        "session.status_idled",
    ]
    assert set(rules.types_of([*events, {"type": "session.status_terminated"}])) <= rules.TYPES


def test_an_endpoint_hears_what_it_asked_for_while_enabled():
    endpoint = {"status": "enabled", "event_types": ["session.idled"]}
    assert rules.wants(endpoint, "session.idled")
    assert not rules.wants(endpoint, "session.running")
    assert not rules.wants({**endpoint, "status": "disabled"}, "session.idled")
