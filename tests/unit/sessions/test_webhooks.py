"""Signatures of webhooks, beside the library that the service's own SDK uses."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook

from handiwork.model.errors import BadSignatureError, ConfigError
from handiwork.sessions.webhooks import (
    SESSION_EVENTS,
    Delivery,
    Rate,
    check_time,
    keys_of,
    read_event,
    read_headers,
    read_key,
    verify,
)

KEY = bytes(range(0xE0, 0x100))
"""Its base64 has `+`, `/` and, in the other alphabet, `-` and `_`."""
NOW = datetime(2026, 3, 18, 14, 5, 22, tzinfo=UTC)
BODY = (
    b'{"type":"event","id":"event_01ABC","created_at":"2026-03-18T14:05:22Z",'
    b'"data":{"type":"session.status_run_started","id":"sesn_01A","workspace_id":"wrkspc_1"}}'
)


def headers(
    body: bytes = BODY, key: bytes = KEY, at: datetime = NOW, **changed: str | None
) -> list[tuple[bytes, bytes]]:
    """Headers as the library signs them."""
    made = {
        "webhook-id": "event_01ABC",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(key).sign("event_01ABC", at, body.decode()),
    }
    made |= {f"webhook-{name}": value for name, value in changed.items()}  # type: ignore[misc]
    return [(name.encode(), value.encode()) for name, value in made.items() if value is not None]


def proven(given: list[tuple[bytes, bytes]], body: bytes = BODY, *keys: bytes) -> Delivery:
    delivery = read_headers(given)
    check_time(delivery, NOW)
    verify(delivery, body, keys or (KEY,))
    return delivery


def test_what_the_library_signs_is_proven() -> None:
    assert proven(headers()).id == "event_01ABC"
    assert proven(headers(), BODY, bytes(32), KEY).id == "event_01ABC"
    upper = [(name.upper(), value) for name, value in headers()]
    assert proven(upper).timestamp == int(NOW.timestamp())


@pytest.mark.parametrize(
    "text",
    [
        "whsec_" + base64.b64encode(KEY).decode(),
        "whsec_" + base64.b64encode(KEY).decode().rstrip("="),
        base64.b64encode(KEY).decode() + "\n",
        "whsec_" + base64.urlsafe_b64encode(KEY).decode(),
        base64.urlsafe_b64encode(KEY).decode().rstrip("="),
    ],
)
def test_a_key_in_every_spelling(text: str) -> None:
    assert set("+/-_") & set(text.removeprefix("whsec_"))
    assert read_key(text) == KEY


@pytest.mark.parametrize(
    "text",
    ["", "whsec_", "whsec_!!!", "A" * 21, "a b" * 10, "A" * 16 + "=A", "QUJD", "é" * 44, "A" * 500],
)
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(ConfigError, match="the webhook key"):
        read_key(text)


def test_a_refused_key_is_not_told() -> None:
    for text in ("c2VjcmV0LXZhbHVl*", "QUJDREVGR0g=", "QUJDREVGR0hJSktMTU5PUF"[:21]):
        with pytest.raises(ConfigError) as caught:
            read_key(text)
        assert text not in str(caught.value)


def test_keys_of_several_places() -> None:
    text = base64.b64encode(KEY).decode()
    assert keys_of([(f"{text}\n\nwhsec_{text}\n", "a"), (text, "b")]) == (KEY,) * 3
    with pytest.raises(ConfigError, match="the file: the webhook key is not base64"):
        keys_of([("?", "the file")])
    with pytest.raises(ConfigError, match="9 webhook keys"):
        keys_of([(f"{text}\n" * 9, "a")])


@pytest.mark.parametrize("seconds", [-300, -299, 0, 299, 300])
def test_times_within_the_tolerance(seconds: int) -> None:
    proven(headers(at=NOW + timedelta(seconds=seconds)))


@pytest.mark.parametrize("seconds", [-86400, -301, 301, 86400])
def test_times_beyond_it(seconds: int) -> None:
    with pytest.raises(BadSignatureError, match="timestamp"):
        proven(headers(at=NOW + timedelta(seconds=seconds)))


@pytest.mark.parametrize(
    "changed",
    [
        {"id": None},
        {"timestamp": None},
        {"signature": None},
        {"id": "event_01ABD"},
        {"id": "event.01ABC"},
        {"id": "e" * 129},
        {"id": ""},
        {"timestamp": "0"},
        {"timestamp": "-5"},
        {"timestamp": "1e9"},
        {"timestamp": "nan"},
        {"timestamp": "9" * 400},
        {"timestamp": f"{NOW.timestamp()}"},
        {"timestamp": f"0{int(NOW.timestamp())}"},
        {"timestamp": str(int(NOW.timestamp()) + 1)},
        {"signature": ""},
        {"signature": "no-comma"},
        {"signature": "v1,"},
        {"signature": "v1,!!!!"},
        {"signature": "v1," + "A" * 43 + "="},
        {"signature": "v1,,"},
        {"signature": "v1a," + "A" * 88},
        {"signature": "x " * 2049},
    ],
)
def test_odd_headers_prove_nothing(changed: dict[str, str | None]) -> None:
    with pytest.raises(BadSignatureError):
        proven(headers(**changed))


def test_a_signature_of_another_version_or_key_or_body() -> None:
    (_, _, (_, signature)) = headers()
    with pytest.raises(BadSignatureError):
        proven(headers(signature="v2" + signature.decode()[2:]))
    with pytest.raises(BadSignatureError):
        proven(headers(key=bytes(32)))
    with pytest.raises(BadSignatureError):
        proven(headers(), BODY + b" ")
    with pytest.raises(BadSignatureError):
        verify(read_headers(headers()), BODY, ())


def test_one_good_signature_among_odd_ones() -> None:
    good = headers()[2][1].decode()
    assert proven(headers(signature=f"odd v2,{'A' * 43}= v1,{'A' * 43}= {good}"))
    with pytest.raises(BadSignatureError):
        proven(headers(signature=" ".join(["odd"] * 16 + [good])))


def test_a_header_given_twice() -> None:
    for again in headers():
        with pytest.raises(BadSignatureError, match="twice"):
            proven([*headers(), again])


def test_what_an_event_says() -> None:
    told = read_event(read_headers(headers()), BODY, NOW)
    assert (told.id, told.kind, told.subject_id) == (
        "event_01ABC",
        "session.status_run_started",
        "sesn_01A",
    )
    assert (told.known, told.data["workspace_id"], told.received_at) == (True, "wrkspc_1", NOW)


def test_kinds_that_are_not_known_are_events_too() -> None:
    delivery = read_headers(headers())
    for kind in ("agent.created", "session.of_next_year", "vault.archived"):
        body = b'{"data":{"type":"%b","id":7,"more":{}}}' % kind.encode()
        told = read_event(delivery, body, NOW)
        assert (told.kind, told.known, told.data) == (kind, False, {"type": kind})
    assert len(SESSION_EVENTS) == 17


def test_what_a_sender_says_is_cut_and_printable() -> None:
    many = ",".join(f'"k{n}\\u001b":"\\u202e{"x" * 999}"' for n in range(99))
    body = b'{"data":{%b,"id":"sesn_1","type":"a\\u0000b"}}' % many.encode()
    told = read_event(read_headers(headers()), body, NOW)
    assert (told.kind, told.subject_id, len(told.data)) == ("a\ufffdb", "sesn_1", 16)
    assert all(len(value) <= 256 and value.isprintable() for value in told.data.values())
    assert all(name.isprintable() for name in told.data)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"{}",
        b'{"data":[]}',
        b'{"data":{}}',
        b'{"data":{"type":1}}',
        b'{"data":{"type":""}}',
        b"\xff\xfe",
        b'{"data":{"type":"\xff"}}',
        b"[" * 100_000,
        b'{"data":' * 100_000,
    ],
)
def test_what_is_no_event(body: bytes) -> None:
    with pytest.raises(ConfigError, match="not an event"):
        read_event(read_headers(headers()), body, NOW)


def test_a_rate_fills_with_time() -> None:
    rate = Rate(per_second=2, burst=3)
    assert [rate.admit(10.0) for _ in range(4)] == [True, True, True, False]
    assert not rate.admit(10.4)
    assert rate.admit(10.6)
    assert not rate.admit(9.0)
    assert [rate.admit(1000.0) for _ in range(4)] == [True, True, True, False]
