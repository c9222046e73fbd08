"""Values of Python as JSON."""

import dataclasses
import datetime
import decimal
import json
from collections import OrderedDict, UserDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.sandboxes.isolate.python_cell.values import to_json


@dataclasses.dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"\x01\x02\xff", {"$bytes": "AQL/"}),
        ({1, 2}, [1, 2]),
        ((1, (2,)), [1, [2]]),
        (Point(3), {"x": 3}),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (decimal.Decimal("1.10"), "1.10"),
        (UserDict(a=1), {"a": 1}),
        (OrderedDict(a=None), {"a": None}),
        (ValueError("no"), {"name": "ValueError", "message": "no"}),
        (float("nan"), None),
        ([float("inf")], [None]),
        (
            {2: "a", None: "b", (2,): "c", True: "d"},
            {"2": "a", "null": "b", "(2,)": "c", "true": "d"},
        ),
        ({"a": {2: b"x"}}, {"a": {"2": {"$bytes": "eA=="}}}),
        (2**70, 2**70),
        ("a\ud800é", "a\ud800é"),
    ],
)
def test_what_stands_for_it(value, told):
    assert json.loads(to_json(value)) == told


def test_what_has_no_word_is_its_repr():
    assert json.loads(to_json(object)) == "<class 'object'>"


def test_what_has_no_end_is_an_error():
    circle = []
    circle.append(circle)
    with pytest.raises(ValueError, match="in a circle"):
        to_json(circle)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(plain)
def test_what_json_has_stays_as_it_is(value):
    assert json.loads(to_json(value)) == value
