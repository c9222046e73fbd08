"""What a call is given, by name and in order."""

import json

import msgspec
import pytest

from handiwork.model.errors import ToolFailedError
from handiwork.sandboxes.isolate.arguments import Boxed, Content, boxed, content, taken


class Both(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    content: Content = ""


def given(value):
    return taken("workspace.write", msgspec.Raw(json.dumps(value).encode()), Both)


@pytest.mark.parametrize(
    "value",
    [
        {"path": "a", "content": "b"},
        {"$arguments": ["a", "b"]},
        {"$arguments": ["a"], "content": "b"},
        {"content": "b", "path": "a"},
    ],
)
def test_by_name_and_in_order(value):
    assert given(value) == Both("a", "b")


def test_bytes():
    assert given({"$arguments": ["a", {"$bytes": "AQL/"}]}).content == Boxed(b"\x01\x02\xff")
    assert content(given({"path": "a", "content": {"$bytes": "AQL/"}}).content) == b"\x01\x02\xff"
    assert content("é") == b"\xc3\xa9"
    assert json.loads(msgspec.json.encode(boxed(b"\x01\x02\xff"))) == {"$bytes": "AQL/"}


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"path": 1},
        {"path": "a", "more": 1},
        {"path": "a", "content": {"$bytes": "%"}},
        {"$arguments": ["a", "b", "c"]},
        {"$arguments": "a"},
        {"$arguments": [], "content": "x"},
    ],
)
def test_what_is_wrong_is_told_and_what_it_takes(value):
    with pytest.raises(ToolFailedError, match=r"^workspace.write: .*; it takes path, content\?$"):
        given(value)
