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


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/files", "does not serve /v1/files"),
        ("/v1/files/file_1/content", "does not serve /v1/files"),
        ("/v1/dreams", "does not serve /v1/dreams"),
        ("/v1/agentz", "not found: /v1/agentz"),
        ("/files", "not found"),
    ],
)
def test_what_is_not_served_says_so(path, said):
    error = errors.unrouted(path)
    assert (error.status, said in str(error)) == (404, True)


def test_a_wrong_prefix_is_told():
    assert str(errors.missing("session", "sesn_1")) == "session sesn_1 does not exist"
    assert "begins with sesn_" in str(errors.missing("session", "env_1"))
