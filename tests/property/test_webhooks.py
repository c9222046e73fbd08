"""Keys and headers of webhooks: whatever is given, the answer is ours and the library agrees."""

import base64
from datetime import UTC, datetime, timedelta

from hypothesis import example, given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from handiwork.model.errors import BadSignatureError, ConfigError
from handiwork.sessions.webhooks import (
    Delivery,
    check_time,
    read_event,
    read_headers,
    read_key,
    verify,
)

NOW = datetime(2026, 3, 18, tzinfo=UTC)
KEYS = st.binary(min_size=16, max_size=128)
IDS = st.from_regex(r"\A[A-Za-z0-9_:-]{1,128}\Z")


@given(KEYS, st.booleans(), st.booleans(), st.booleans())
def test_every_spelling_of_a_key_is_the_key(
    key: bytes, prefix: bool, safe: bool, padded: bool
) -> None:
    encoded = (base64.urlsafe_b64encode if safe else base64.b64encode)(key).decode()
    text = ("whsec_" if prefix else "") + (encoded if padded else encoded.rstrip("="))
    assert read_key(text) == key
    if not safe:
        # The library's own reading, where it has one.
        assert Webhook(text).sign("a", NOW, "") == Webhook(key).sign("a", NOW, "")


@given(st.text())
@example("whsec_" + "A" * 1000)
def test_any_text_is_a_key_or_refused(text: str) -> None:
    try:
        key = read_key(text)
    except ConfigError:
        return
    assert 16 <= len(key) <= 128


@given(KEYS, IDS, st.text(), st.integers(-300, 300))
def test_what_the_library_signs_is_proven(key: bytes, name: str, body: str, seconds: int) -> None:
    try:
        raw = body.encode()
    except UnicodeEncodeError:
        return
    at = NOW + timedelta(seconds=seconds)
    signature = Webhook(key).sign(name, at, body)
    delivery = read_headers(
        [
            (b"webhook-id", name.encode()),
            (b"webhook-timestamp", str(int(at.timestamp())).encode()),
            (b"webhook-signature", signature.encode()),
        ]
    )
    check_time(delivery, NOW)
    verify(delivery, raw, [key])


@given(st.lists(st.tuples(st.sampled_from(range(4)), st.binary(max_size=300)), max_size=6))
def test_any_headers_are_a_delivery_or_refused(given_headers: list[tuple[int, bytes]]) -> None:
    names = [b"webhook-id", b"Webhook-Timestamp", b"webhook-signature", b"other"]
    try:
        delivery = read_headers([(names[n], value) for n, value in given_headers])
    except BadSignatureError:
        return
    assert "." not in delivery.id
    assert 0 < delivery.timestamp < 10**12
    assert all(len(signature) == 32 for signature in delivery.signatures)


@given(KEYS, st.binary(min_size=32, max_size=32), st.binary())
def test_no_other_signature_is_proof(key: bytes, signature: bytes, body: bytes) -> None:
    delivery = Delivery(id="a", timestamp=1, signatures=(signature,))
    try:
        verify(delivery, body, [key])
    except BadSignatureError:
        return
    raise AssertionError("a random signature was taken")


@given(st.binary())
def test_any_body_is_an_event_or_refused(body: bytes) -> None:
    delivery = Delivery(id="a", timestamp=1, signatures=())
    try:
        told = read_event(delivery, body, NOW)
    except ConfigError:
        return
    assert told.kind
