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
    body = json.loads(errors.envelope(errors.WireError(409, "m", {"a": 1}), "req_1"))
    assert body == {
        "type": "error",
        "error": {"type": "conflict_error", "message": "m", "details": {"a": 1}},
        "request_id": "req_1",
    }


def test_an_error_may_have_a_type_of_its_own():
    error = errors.WireError(409, "m", kind="memory_path_conflict_error")
    body = json.loads(errors.envelope(error, "req_1"))
    assert body["error"] == {"type": "memory_path_conflict_error", "message": "m"}
