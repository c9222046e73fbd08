"""Code and what it gave, as plain facts."""

import msgspec
import pytest

from handiwork.model.code import (
    LANGUAGES,
    CodeError,
    CodeLimits,
    CodeRequest,
    CodeResult,
    LimitKind,
)


def test_a_request_has_limits_unless_told() -> None:
    request = CodeRequest(code="1")
    assert (request.language, request.fresh, request.limits) == ("javascript", False, CodeLimits())
    assert request.language in LANGUAGES
    assert all(value > 0 for value in msgspec.structs.asdict(CodeLimits()).values())


@pytest.mark.parametrize("body", [b'{"cpu_ms":"1"}', b'{"cpu":1}', b"[]"])
def test_limits_are_strict(body: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=CodeLimits)


def test_a_value_is_what_its_json_says() -> None:
    assert CodeResult().value is None
    assert CodeResult(value_json=b'{"a":[1]}').value == {"a": [1]}


def test_an_error_goes_over_the_wire_and_back() -> None:
    error = CodeError(name="LimitError", message="too much", limit=LimitKind.CPU)
    text = msgspec.json.encode(error)
    assert b'"limit":"cpu"' in text
    assert msgspec.json.decode(text, type=CodeError) == error
