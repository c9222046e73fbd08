"""Schemas of custom tools as the service takes them, and what it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.brains.local.errors import WireError
from handiwork.brains.local.tool_schemas import MAX_DEPTH, check_schema

TEXT = {"type": "string"}


def of(**properties):
    return {"type": "object", "properties": properties}


def nested(depth):
    schema = dict(TEXT)
    for _ in range(depth):
        schema = of(inner=schema)
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        of(a=TEXT, **{"b.c-d_9": {"anyOf": [TEXT, {"type": "null"}]}}),
        of(definitions=TEXT, anyOf=TEXT, properties=of(x=TEXT)),
        of(a={"enum": [{"$ref": "a value"}], "default": {"$defs": 1}}),
        of(a={"type": "array", "items": of(b=TEXT)}),
        nested(20),
    ],
)
def test_what_is_taken(schema):
    check_schema("mine", schema)


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "string"}, "its type must be 'object'"),
        ({"type": ["object", "null"]}, "its type must be 'object'"),
        ({"anyOf": [of(a=TEXT)]}, "no anyOf at its top"),
        ({**of(a=TEXT), "allOf": []}, "no allOf at its top"),
        ({**of(a=TEXT), "$defs": {}}, r"no \$defs"),
        (of(a={"$ref": "#/x"}), r"no \$ref"),
        (of(a={"type": "array", "items": {"$ref": "#/x"}}), r"no \$ref"),
        (of(a={"anyOf": [TEXT, {"definitions": {}}]}), "no definitions"),
        (of(**{"$schema": TEXT}), r"property '\$schema' must match"),
        (of(**{"a b": TEXT}), "property 'a b'"),
        (of(a=of(**{"": TEXT})), "property ''"),
        (of(**{"x" * 65: TEXT}), "property 'xxx"),
        (nested(MAX_DEPTH + 1), "deeper than"),
    ],
)
def test_what_is_refused_is_named(schema, told):
    with pytest.raises(WireError, match=told) as error:
        check_schema("mine", schema)
    assert "'mine'" in str(error.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["properties", "items", "anyOf", "$ref", "enum", "type", "a"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=4))
def test_whatever_it_is_it_is_taken_or_refused(schema):
    try:
        check_schema("mine", schema)
    except WireError:
        return
    assert schema.get("type", "object") == "object"
    assert not {"anyOf", "$ref"} & schema.keys()
