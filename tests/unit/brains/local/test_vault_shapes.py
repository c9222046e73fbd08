"""Bodies about credentials: other types are refused, and no value shows itself."""

import json

import msgspec
import pytest

from handiwork.brains.local.errors import WireError
from handiwork.brains.local.shapes import decode
from handiwork.brains.local.vault_shapes import (
    CredentialCreate,
    CredentialUpdate,
    Injection,
    VariableCreate,
    VariableUpdate,
    auth_of,
    locations,
)

VALUE = "sk-the-real-secret-value"
AUTH = {
    "type": "environment_variable",
    "secret_name": "TOKEN",
    "secret_value": VALUE,
    "networking": {"type": "limited", "allowed_hosts": ["api.example.com"]},
}


def raw(**changes) -> msgspec.Raw:
    return msgspec.Raw(json.dumps({**AUTH, **changes}).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "mcp_oauth"},
        {"type": "static_bearer"},
        {"type": VALUE},
        {"secret_name": "1A"},
        {"secret_name": "A-B"},
        {"secret_name": ""},
        {"networking": {"type": "unrestricted"}},
        {"networking": {"type": "limited", "allowed_hosts": []}},
        {"networking": {"type": "limited", "allowed_hosts": ["a.test"] * 17}},
        {"secret_value": 5},
        {"extra": VALUE},
    ],
)
def test_what_is_not_served_is_a_400_without_the_value(changes):
    with pytest.raises(WireError) as refused:
        auth_of(raw(**changes), VariableCreate)
    assert refused.value.status == 400
    assert VALUE not in str(refused.value)


def test_no_value_shows_itself():
    body = decode(json.dumps({"auth": AUTH}).encode(), CredentialCreate)
    change = decode(json.dumps({"auth": AUTH}).encode(), CredentialUpdate)
    auth = auth_of(body.auth, VariableCreate)
    update = VariableUpdate(type="environment_variable", secret_value=VALUE)
    for shown in (body, change, auth, update):
        assert VALUE not in repr(shown)
        assert VALUE not in f"{shown}"


def test_placeholders_are_replaced_in_headers():
    headers = {"header": True, "body": False}
    assert locations(headers, None) == headers == locations(headers, Injection(body=False))
    with pytest.raises(WireError, match="headers only"):
        locations(headers, Injection(body=True))
    with pytest.raises(WireError, match="at least one"):
        locations(headers, Injection(header=False))
