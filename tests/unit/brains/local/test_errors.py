"""Refusals in the protocol's words."""

import json

import pytest

from handiwork.brains.local import errors
from handiwork.model.errors import ConflictError, NotFoundError, SecretMissingError


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.invalid("x"), 400),
        (errors.missing("agent", "a"), 404),
        (NotFoundError("x"), 404),
        (ConflictError("x"), 409),
        (SecretMissingError("x"), 500),
    ],
)
def test_every_error_has_a_status(error, status):
    assert errors.status_of(error) == status


def test_the_envelope_names_type_message_and_request():
    body = json.loads(errors.envelope(409, "m", "req_1", {"a": 1}))
    assert body == {
        "type": "error",
        "error": {"type": "conflict_error", "message": "m", "details": {"a": 1}},
        "request_id": "req_1",
    }
