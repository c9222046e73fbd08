"""Every error of the tree survives the wire; bodies refuse what they do not know."""

import msgspec
import pytest

from handiwork.model import errors
from handiwork.model.errors import GuestError, HandiworkError, NotFoundError, PolicyDeniedError
from handiwork.model.wire import (
    ErrorBody,
    ExecBody,
    SecretBody,
    error_body,
    error_of,
    error_type,
)

PLAIN = [
    kind
    for kind in HandiworkError.__subclasses__()
    if kind.__module__ == errors.__name__ and kind not in (GuestError, PolicyDeniedError)
]


@pytest.mark.parametrize("kind", PLAIN)
def test_an_error_comes_back_as_itself(kind: type[HandiworkError]) -> None:
    back = error_of(error_body(kind("what, where, what to do")))
    assert type(back) is kind
    assert str(back) == "what, where, what to do"


def test_what_a_class_carries_comes_back() -> None:
    guest = error_of(error_body(GuestError("no such file", errno=2)))
    assert isinstance(guest, GuestError)
    assert guest.errno == 2
    denied = error_of(error_body(PolicyDeniedError("no", rule_id="agent:web/deny")))
    assert isinstance(denied, PolicyDeniedError)
    assert denied.rule_id == "agent:web/deny"


def test_names_are_unique_and_an_unknown_one_is_the_root() -> None:
    names = [error_type(kind) for kind in HandiworkError.__subclasses__()]
    assert len(set(names)) == len(names)
    assert error_type(NotFoundError) == "not_found"
    assert type(error_of(ErrorBody(type="new", message="m"))) is HandiworkError


@pytest.mark.parametrize(
    "body",
    [
        b'{"argv":[]}',
        b'{"argv":["a"],"timeout":5}',
        b'{"argv":["a"],"timeout_seconds":0}',
        b'{"argv":["a"],"timeout_seconds":1e9}',
        b'{"argv":["a"],"output_limit_bytes":-1}',
        b'{"argv":["a"],"output_limit_bytes":0}',
        b'{"argv":"ls"}',
        b'{"argv":["a"],"stdin":"not base64!"}',
    ],
)
def test_a_body_out_of_bounds_is_refused(body: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=ExecBody)


def test_a_secret_shows_its_value_nowhere() -> None:
    assert "hunter2" not in repr(SecretBody(value="hunter2", hosts=("a.test",)))


def test_a_subclass_from_elsewhere_does_not_stand_for_the_tree() -> None:
    class OddError(HandiworkError):
        def __init__(self, one: str, two: str) -> None:
            super().__init__(one + two)

    assert type(error_of(ErrorBody(type="odd", message="what"))) is HandiworkError
