"""Signatures of requests, held against botocore's own for the same request and time."""

from datetime import UTC, datetime
from unittest import mock

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from handiwork.egress.sigv4 import CannotSign, Signer

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
KEY_ID, KEY, TOKEN = "AKIDEXAMPLE00001", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "tok+/en=="
HASH = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
HOST = "things.example.com"


def signer(service: str = "s3", token: str = "") -> Signer:
    return Signer(
        region="eu-west-1",
        service=service,
        access_key_id=KEY_ID,
        secret_access_key=KEY,
        session_token=token,
    )


def ours(service: str, target: str, fields: dict[str, str], token: str = "") -> dict[str, str]:
    sent = [(name.encode(), value.encode()) for name, value in fields.items()]
    made = signer(service, token).sign(b"GET", target, HOST.encode(), sent, has_body=False, now=NOW)
    return {name.decode(): value.decode() for name, value in made}


def theirs(service: str, target: str, fields: dict[str, str], token: str = "") -> str:
    kind = S3SigV4Auth if service == "s3" else SigV4Auth
    request = AWSRequest("GET", f"https://{HOST}{target}", headers=dict(fields))
    request.context["payload_signing_enabled"] = True
    credentials = Credentials(KEY_ID, KEY, token or None)
    with mock.patch("botocore.auth.get_current_datetime", return_value=NOW.replace(tzinfo=None)):
        kind(credentials, service, "eu-west-1").add_auth(request)
    return str(request.headers["Authorization"])


@pytest.mark.parametrize("service", ["s3", "execute-api"])
@pytest.mark.parametrize("token", ["", TOKEN])
@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/a/b%20c",
        "/a%2Bb/~x_y.z",
        "/?list-type=2&prefix=a%2Fb&A=1&a=",
        "/b?acl",
        "/%C3%A9?z=1&y=%20",
    ],
)
def test_the_signature_is_that_of_botocore(service: str, token: str, target: str):
    fields = {"x-amz-meta-b": "two  spaces", "X-Amz-Acl": "private", "x-amz-content-sha256": HASH}
    assert ours(service, target, fields, token)["authorization"] == theirs(
        service, target, fields, token
    )


def test_the_clients_own_signature_has_no_part_in_it():
    plain = ours("s3", "/", {})
    fields = {"x-amz-date": "x", "x-amz-security-token": "mine", "authorization": "AWS4 mine"}
    assert ours("s3", "/", fields) == plain
    assert plain["x-amz-content-sha256"] == HASH
    assert plain["x-amz-date"] == "20260304T050607Z"
    assert ours("s3", "/", {}, TOKEN)["x-amz-security-token"] == TOKEN


@pytest.mark.parametrize(
    ("service", "told", "hashed"),
    [
        ("s3", None, "UNSIGNED-PAYLOAD"),
        ("s3", b"UNSIGNED-PAYLOAD", "UNSIGNED-PAYLOAD"),
        ("s3", b"STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        ("execute-api", HASH.encode(), HASH),
        ("execute-api", None, None),
        ("execute-api", b"UNSIGNED-PAYLOAD", None),
        ("s3", b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", None),
        ("s3", b"0", None),
    ],
)
def test_bodies_that_can_be_signed(service: str, told: bytes | None, hashed: str | None):
    fields = [] if told is None else [(b"x-amz-content-sha256", told)]

    def signed() -> dict[bytes, bytes]:
        made = signer(service).sign(b"PUT", "/k", HOST.encode(), fields, has_body=True, now=NOW)
        return dict(made)

    if hashed is None:
        with pytest.raises(CannotSign):
            signed()
    else:
        assert signed()[b"x-amz-content-sha256"].decode() == hashed


def test_a_url_that_is_signed_already_is_refused():
    for query in ("X-Amz-Signature=00", "a=1&x-amz-%73ignature=00", "X-Amz-Algorithm=x"):
        with pytest.raises(CannotSign):
            ours("s3", f"/?{query}", {})


def test_a_hash_told_twice_is_refused():
    fields = [(b"x-amz-content-sha256", HASH.encode())] * 2
    with pytest.raises(CannotSign):
        signer().sign(b"GET", "/", HOST.encode(), fields, has_body=False, now=NOW)


def test_no_key_shows_itself():
    assert KEY not in repr(signer(token=TOKEN))
    assert TOKEN not in repr(signer(token=TOKEN))
