"""Webhooks in: is it from who holds the key, is it of this hour, what does it say. No I/O.

Standard Webhooks 1.0: `webhook-signature` holds `v1,BASE64` parts, each an HMAC-SHA256 over
`ID.TIMESTAMP.BODY` of the raw bytes. Keys are read here and not by the library, which decodes only
one of the two base64 alphabets in use and passes over what it does not know.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from standardwebhooks.webhooks import hmac_data

from handiwork.model.errors import BadSignatureError, ConfigError
from handiwork.model.webhook import ReceivedWebhook

WEBHOOK_KEYS = "webhook-keys"
"""The control secret that holds keys, one a line."""
TOLERANCE_SECONDS = 300
"""Either way: the tolerance of Standard Webhooks, and what the service's own SDK holds to."""
MAX_KEYS = 8
KEY_BYTES = range(16, 129)
MAX_HEADER_CHARS = 4096
MAX_SIGNATURES = 16
MAX_FIELDS = 16
MAX_NAME_CHARS = 64
MAX_VALUE_CHARS = 256

SESSION_EVENTS = frozenset(
    f"session.{what}"
    for what in (
        "created",
        "pending",
        "running",
        "idled",
        "requires_action",
        "archived",
        "deleted",
        "updated",
        "budget_reached",
        "outcome_evaluation_ended",
        "status_run_started",
        "status_idled",
        "status_rescheduled",
        "status_terminated",
        "thread_created",
        "thread_idled",
        "thread_terminated",
    )
)
"""Kinds that may mean work. One endpoint hears of a whole workspace: the queue says what is ours."""

_PREFIX = "whsec_"
_KEY = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_ID = re.compile(r"[A-Za-z0-9_:-]{1,128}")
"""Without a full stop, which separates the signed parts."""
_TIMESTAMP = re.compile(r"[1-9][0-9]{0,11}")
_SIGNATURE = re.compile(r"v1,([A-Za-z0-9+/]{43}=)")


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """The three headers of a delivery, well formed and not yet proven."""

    id: str
    timestamp: int
    signatures: tuple[bytes, ...]


def read_key(text: str) -> bytes:
    """Return a signing key: `whsec_` or not, either base64 alphabet, padded or not.

    ConfigError never repeats the text.
    """
    encoded = text.strip().removeprefix(_PREFIX)
    if not _KEY.fullmatch(encoded):
        raise ConfigError("the webhook key is not base64; copy it whole, with or without `whsec_`")
    plain = encoded.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        key = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        raise ConfigError("the webhook key is cut short: its base64 does not end evenly") from None
    if len(key) not in KEY_BYTES:
        raise ConfigError(
            f"the webhook key has {len(key)} bytes; {KEY_BYTES[0]} to {KEY_BYTES[-1]} are accepted"
        )
    return key


def keys_of(texts: Iterable[tuple[str, str]]) -> tuple[bytes, ...]:
    """Return the keys of texts that hold one on each line; ConfigError begins with a text's place."""
    keys: list[bytes] = []
    for text, where in texts:
        try:
            keys += [read_key(line) for line in text.splitlines() if line.strip()]
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
    if len(keys) > MAX_KEYS:
        raise ConfigError(f"{len(keys)} webhook keys are set; at most {MAX_KEYS} are tried")
    return tuple(keys)


def read_headers(headers: Iterable[tuple[bytes, bytes]]) -> Delivery:
    """Return the delivery that a request's headers announce.

    BadSignatureError: one is missing, given twice or malformed. A signature of a form or version
    that is not known counts as none.
    """
    found: dict[bytes, str] = {}
    for raw_name, value in headers:
        name = raw_name.lower()
        if name in (b"webhook-id", b"webhook-timestamp", b"webhook-signature"):
            if name in found or len(value) > MAX_HEADER_CHARS:
                raise BadSignatureError(f"the header {name.decode()} is given twice or is too long")
            found[name] = value.decode("latin-1").strip(" \t")
    if len(found) < 3:
        raise BadSignatureError("webhook-id, webhook-timestamp and webhook-signature must be given")
    if not _ID.fullmatch(found[b"webhook-id"]):
        raise BadSignatureError("the header webhook-id is malformed")
    if not _TIMESTAMP.fullmatch(found[b"webhook-timestamp"]):
        raise BadSignatureError("the header webhook-timestamp is not a time in whole seconds")
    return Delivery(
        id=found[b"webhook-id"],
        timestamp=int(found[b"webhook-timestamp"]),
        signatures=_signatures(found[b"webhook-signature"]),
    )


def check_time(delivery: Delivery, at: datetime) -> None:
    """BadSignatureError when the delivery is stamped too far from this time."""
    if abs(at.timestamp() - delivery.timestamp) > TOLERANCE_SECONDS:
        raise BadSignatureError(
            f"webhook-timestamp is more than {TOLERANCE_SECONDS} s away from this machine's time"
        )


def verify(delivery: Delivery, body: bytes, keys: Sequence[bytes]) -> None:
    """BadSignatureError unless a signature of the delivery is that of one of the keys."""
    signed = b"%b.%d.%b" % (delivery.id.encode(), delivery.timestamp, body)
    proven = False
    for key in keys:
        expected = hmac_data(key, signed)
        for signature in delivery.signatures:
            proven |= hmac.compare_digest(expected, signature)
    if not proven:
        raise BadSignatureError("no webhook-signature is that of a key set here")


def read_event(delivery: Delivery, body: bytes, at: datetime) -> ReceivedWebhook:
    """Return what a proven delivery says. ConfigError when it is no event; unknown kinds are."""
    try:
        event = msgspec.json.decode(body, type=_Event)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ConfigError("the body is not an event: JSON with an object `data`") from None
    data = _told(event.data)
    kind = data.get("type", "")
    if not kind:
        raise ConfigError("the body is not an event: `data.type` must name its kind")
    return ReceivedWebhook(
        id=delivery.id,
        kind=kind,
        subject_id=data.get("id", ""),
        known=kind in SESSION_EVENTS,
        data=data,
        received_at=at,
    )


class Rate:
    """A bucket of requests that fills with time; time is an argument."""

    def __init__(self, *, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = float(burst)
        self._at: float | None = None

    def admit(self, now: float) -> bool:
        """Take one; False when there is none left."""
        if self._at is not None:
            grown = self._left + max(0.0, now - self._at) * self._per_second
            self._left = min(float(self._burst), grown)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class _Event(msgspec.Struct, frozen=True):
    """The envelope of an event; other fields are passed over."""

    data: dict[str, Any]


def _signatures(header: str) -> tuple[bytes, ...]:
    tokens = header.split(" ", MAX_SIGNATURES + 1)[:MAX_SIGNATURES]
    matches = (_SIGNATURE.fullmatch(token) for token in tokens)
    return tuple(base64.b64decode(match[1]) for match in matches if match)


def _told(data: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of an event's data, cut and printable; the rest is not kept."""
    texts = [(name, value) for name, value in data.items() if isinstance(value, str)]
    # The two that are read come first, so that a crowd of others cannot push them out.
    texts.sort(key=lambda pair: pair[0] not in ("type", "id"))
    return {
        _printable(name)[:MAX_NAME_CHARS]: _printable(value)[:MAX_VALUE_CHARS]
        for name, value in texts[:MAX_FIELDS]
    }


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:MAX_VALUE_CHARS])
