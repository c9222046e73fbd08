"""Arguments of code are read by shape and within bounds, whatever a guest makes of them."""

import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.model.errors import ToolFailedError
from handiwork.tools.code_arguments import ARGUMENT_KIB, PARTS, converted, named

MIB = 1 << 20


class Write(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    content: str
    mode: int | None = None


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"path": "a", "content": "b"}, Write("a", "b")),
        ({"$arguments": ["a", "b"]}, Write("a", "b")),
        ({"$arguments": ["a"], "content": "b"}, Write("a", "b")),
        ({"$arguments": ["a", "b"], "content": "c"}, Write("a", "c")),
        ({"$arguments": ["a", "b", None]}, Write("a", "b")),
        ({"$arguments": [], "path": "a", "content": "b", "mode": 3}, Write("a", "b", 3)),
    ],
)
def test_by_name_and_in_order(given: dict[str, Any], expected: Write) -> None:
    assert converted("write", raw(given), Write) == expected


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "missing required field `path`; it takes one object of path, content, mode"),
        ({"path": "a"}, "missing required field `content`"),
        ({"path": 1}, r"Expected `str`, got `int` - at `\$.path`"),
        ({"path": "a", "content": "b", "other": 1}, "unknown field `other`"),
        ({"$arguments": ["a", "b", 1, 2]}, "at most length 3"),
        ({"$arguments": [["a"]]}, "Expected `str`, got `array`"),
        ({"$arguments": {"path": "a"}}, "Expected `array`"),
        (["a", "b"], "Expected `object`"),
        ("a", "Expected `object`"),
        (None, "Expected `object`"),
    ],
)
def test_what_does_not_fit_is_told(given: Any, why: str) -> None:
    with pytest.raises(ToolFailedError, match=f"codemode.write: .*{why}"):
        converted("write", raw(given), Write)


@pytest.mark.parametrize(
    "bomb",
    [
        b'{"$arguments":[' + b"[]," * (8 * MIB) + b"1]}",
        b'{"path":[' + b"{}," * (8 * MIB) + b"1]}",
        b"[" + b"[]," * (8 * MIB) + b"1]",
        b'{"path":"a","content":"b",' + b'"a":1,' * (4 * MIB) + b'"b":1}',
        b'{"path":' + b"[" * (8 * MIB) + b"]" * (8 * MIB) + b"}",
    ],
    ids=["in order", "a field", "no object", "many fields", "nested"],
)
def test_a_bomb_of_values_makes_none(bomb: bytes) -> None:
    argument = msgspec.Raw(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(ToolFailedError):
            converted("write", argument, Write)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


def test_a_long_text_is_taken_whole() -> None:
    content = "x" * (16 * MIB)
    assert converted("write", raw({"path": "a", "content": content}), Write).content == content


def test_arguments_of_tools_are_taken_by_name_and_in_order() -> None:
    assert named("add", raw({"$arguments": [1, [2]], "c": {"d": 3}}), ("a", "b", "c")) == {
        "a": 1,
        "b": [2],
        "c": {"d": 3},
    }


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([1], "call it with one object"),
        ({"$arguments": [1, 2, 3]}, "it takes a, b"),
        ({"$arguments": 1}, "it takes a, b"),
        ({"a": "x" * (ARGUMENT_KIB << 10)}, "bytes, 1024 KiB are the most"),
        ({"a": [0] * PARTS}, f"more than {PARTS} values"),
        ({"a": [[{"b": []}]] * PARTS}, f"more than {PARTS} values"),
    ],
)
def test_arguments_of_tools_are_bounded(given: Any, why: str) -> None:
    with pytest.raises(ToolFailedError, match=f"codemode.add: .*{why}"):
        named("add", raw(given), ("a", "b"))


def test_as_many_values_as_there_may_be_are_taken() -> None:
    given = {"a": [0] * (PARTS - 2)}
    assert named("add", raw(given), ("a",)) == given


@given(st.binary(max_size=64))
def test_any_bytes_are_taken_or_refused(data: bytes) -> None:
    argument = msgspec.Raw(data)
    for read in (
        lambda: converted("write", argument, Write),
        lambda: named("write", argument, ("a",)),
    ):
        try:
            read()
        except ToolFailedError:
            continue
