"""Schemas as types: what each says, and that none says more than it should."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.tools.json_types import CHARACTERS, comment, python_type, typescript_type


@pytest.mark.parametrize(
    ("schema", "typescript", "python"),
    [
        ({"type": "string"}, "string", "str"),
        ({"type": "integer"}, "number", "int"),
        ({"type": "number"}, "number", "float"),
        ({"type": "boolean"}, "boolean", "bool"),
        ({"type": "null"}, "null", "None"),
        ({"type": ["string", "null"]}, "string | null", "str | None"),
        ({"type": "string", "nullable": True}, "string | null", "str | None"),
        ({}, "unknown", "Any"),
        (True, "unknown", "Any"),
        (False, "never", "Any"),
        ({"type": "array"}, "unknown[]", "list[Any]"),
        ({"type": "array", "items": {"type": "string"}}, "string[]", "list[str]"),
        ({"items": {"type": ["string", "null"]}}, "(string | null)[]", "list[str | None]"),
        (
            {"type": "array", "prefixItems": [{"type": "string"}, {}]},
            "[string, unknown]",
            "list[Any]",
        ),
        ({"type": "array", "items": [{"type": "string"}]}, "[string]", "list[Any]"),
        ({"type": "object"}, "Record<string, unknown>", "dict[str, Any]"),
        ({"type": "object", "additionalProperties": False}, "{}", "dict[str, Any]"),
        (
            {"type": "object", "additionalProperties": {"type": "integer"}},
            "{\n    [key: string]: number;\n}",
            "dict[str, int]",
        ),
        ({"enum": ["a", 3, None, "a"]}, '"a" | 3 | null', "Literal['a', 3, None, 'a']"),
        ({"const": "k"}, '"k"', "Literal['k']"),
        (
            {"enum": [True, 1.0, -2.5, 1e21, 1e-7, 1e-5]},
            "true | 1 | -2.5 | 1e+21 | 1e-7 | 0.00001",
            "Any",
        ),
        ({"enum": [{"a": [1, "x"]}]}, '{"a":[1,"x"]}', "Any"),
        ({"enum": [float("inf"), 10**400]}, "number", "Any"),
        (
            {"enum": ["\b\x7f\u2028\ud800"]},
            r'"\u0008\u007f\u2028\ud800"',
            "Literal['\\x08\\x7f\\u2028\\ud800']",
        ),
        ({"enum": []}, "never", "Any"),
        ({"enum": "abc"}, "unknown", "Any"),
        ({"anyOf": []}, "never", "Any"),
        ({"anyOf": [{"type": "string"}] * 2}, "string", "str"),
        ({"allOf": []}, "unknown", "Any"),
        ({"items": {"enum": ["(", "|"]}}, '("(" | "|")[]', "list[Literal['(', '|']]"),
        ({"items": {"const": "a | b"}}, '"a | b"[]', "list[Literal['a | b']]"),
        (
            {"items": {"allOf": [{"type": "string"}, {"type": "number"}]}},
            "(string & number)[]",
            "list[Any]",
        ),
        ({"anyOf": [{"type": "string"}, {"type": "number"}]}, "string | number", "str | float"),
        ({"oneOf": [{"const": 1}, {"const": 2}]}, "1 | 2", "Literal[1] | Literal[2]"),
        (
            {"allOf": [{"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": "string"}]},
            "(string | null) & string",
            "Any",
        ),
        (
            {"properties": {"a": {"type": "string"}, "b-c": {}}, "required": ["a"]},
            '{\n    a: string;\n    "b-c"?: unknown;\n}',
            "dict[str, Any]",
        ),
    ],
)
def test_what_a_schema_says(schema, typescript, python):
    assert (typescript_type(schema), python_type(schema)) == (typescript, python)


@pytest.mark.parametrize("name", ["anyOf", "oneOf", "allOf"])
def test_alternatives_that_only_require_fields_take_none_away(name):
    fields = {"properties": {"a": {"type": "string"}}}
    found = typescript_type({**fields, name: [{"required": ["a"]}, {"required": ["b"]}]})
    assert found == typescript_type(fields)
    found = typescript_type({**fields, name: [{"type": "null"}, {"required": ["b"]}]})
    assert "null" in found


def test_fields_hold_beside_parts():
    part = {"properties": {"b": {"type": "null"}}}
    assert typescript_type({"properties": {"a": {"type": "null"}}, "allOf": [part, {}]}) == (
        "{\n    b?: null;\n} & {\n    a?: null;\n}"
    )


def test_what_people_are_told_stands_beside_the_field():
    schema = {
        "properties": {
            "a": {"type": "string", "description": "one\n  two */ x"},
            "b": {"type": "string", "format": "date"},
            "c": {"type": "string", "format": "date", "description": "when"},
        }
    }
    assert typescript_type(schema) == (
        "{\n    /** one two *\\/ x */\n    a?: string;\n    /** @format date */\n    b?: string;\n"
        "    /**\n     * when\n     * @format date\n     */\n    c?: string;\n}"
    )


def test_references_are_followed_and_lead_back_once():
    node = {"properties": {"v": {"type": "string"}, "next": {"$ref": "#/$defs/N~1o"}}}
    schema = {"$ref": "#/$defs/N~1o", "$defs": {"N/o": node}}
    assert typescript_type(schema) == "{\n    v?: string;\n    next?: unknown;\n}"
    for name in ("#/$defs/none", "http://a.test/x", "#", "#name", 7):
        assert typescript_type({"$ref": name}) == "unknown"
    listed = {"anyOf": [{"type": "string"}, {"$ref": "#/anyOf/0"}, {"$ref": "#/anyOf/9"}]}
    assert typescript_type(listed) == "string | unknown"
    assert typescript_type({"properties": {"a": {"$ref": "#"}}}) == "{\n    a?: unknown;\n}"


def test_what_is_too_large_is_anything():
    wide = {"properties": {f"field_{n}": {"type": "string"} for n in range(3000)}}
    assert typescript_type(wide) == "unknown"
    bomb = {"$ref": "#/$defs/a0", "$defs": {}}
    for n in range(20):
        inner = {"$ref": f"#/$defs/a{n + 1}"}
        bomb["$defs"][f"a{n}"] = {"properties": {"x": inner, "y": inner, "z": inner}}
    assert len(typescript_type(bomb)) <= CHARACTERS
    assert python_type({"enum": [f"value_{n}" for n in range(1000)]}) == "Any"


def test_what_is_nested_is_counted_once():
    schema = {"enum": ["x" * 3000]}
    for _ in range(10):
        schema = {"type": "object", "properties": {"inner": schema}}
    assert "x" * 3000 in typescript_type(schema)


def test_what_is_nested_too_deeply_is_anything():
    schema = {"const": "end"}
    for _ in range(19):
        schema = {"items": schema}
    assert typescript_type(schema) == '"end"' + "[]" * 19
    assert typescript_type({"items": schema}) == "unknown" + "[]" * 20
    value = []
    for _ in range(5000):
        value = [value]
    assert "unknown" in typescript_type({"const": value})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "items",
                    "properties",
                    "anyOf",
                    "allOf",
                    "enum",
                    "$ref",
                    "required",
                    "prefixItems",
                    "additionalProperties",
                    "description",
                    "format",
                    "const",
                    "nullable",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["type", "items", "properties", "anyOf", "enum"]), JSON))
def test_anything_that_is_no_schema_is_some_type(schema):
    assert typescript_type(schema)
    assert python_type(schema)


@given(st.text())
def test_a_comment_is_one_line_and_does_not_end(text):
    told = comment(text)
    assert "*/" not in told
    assert len(told.splitlines()) <= 1
