"""Declarations of tools beside `@cloudflare/codemode`'s own, on a corpus of schemas.

Both are compared as text, but for runs of white space in comments. What differs else stands in DIFFERENCES,
with the reason and what each says: one that is not there any more fails as one does that nobody wrote down.
"""

import ast
from collections.abc import Mapping
from typing import NamedTuple

import pytest

from code_oracle import declared, problems, require_oracle
from code_schemas import PUBLISHED, SHAPES, corpus
from handiwork.tools import code_interface
from handiwork.tools.code_interface import CodeTool, python, typescript
from handiwork.tools.json_types import typescript_type

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class Difference(NamedTuple):
    """Why the two differ, and what stands in theirs where ours has the other."""

    why: str
    theirs: str
    ours: str


_TWICE = "a union names each of its types once"
_WHOLE = "[] binds closer than | and &: without parentheses only the last is an array"
_BOUND = "& binds closer than |: without parentheses the union is cut in two"
_EMPTY = "nothing after the = is no TypeScript"
_SAID = "a false schema says never, which is not the same as no schema"
_IMPLIED = "items or additionalProperties without a type say what it is"
_LOST = "a list of types keeps what the schema says of each"
_REQUIRES = "alternatives that only require fields do not take the fields away"

DIFFERENCES = {
    "false_schema": Difference(_SAID, "Output = unknown", "Output = never"),
    "types_none": Difference(_EMPTY, "put =\n", "put = unknown\n"),
    "types_number_integer": Difference(_TWICE, "number | number", "number"),
    "types_array_with_items": Difference(_LOST, "unknown[] | null", "string[] | null"),
    "types_object_with_fields": Difference(_LOST, "string;\n}", "string;\n} | null"),
    "nullable_enum_with_null": Difference(_TWICE, "null | null", "null"),
    "enum_twice": Difference(_TWICE, '"a" | "b" | "a"', '"a" | "b"'),
    "array_items_false": Difference(_SAID, "unknown[]", "never[]"),
    "array_of_union": Difference(_WHOLE, "string | number[]", "(string | number)[]"),
    "array_of_types": Difference(_WHOLE, "string | null[]", "(string | null)[]"),
    "array_of_enum": Difference(_WHOLE, '"a" | "b"[]', '("a" | "b")[]'),
    "array_of_nullable": Difference(_WHOLE, "string | null[]", "(string | null)[]"),
    "array_of_all": Difference(
        _WHOLE,
        "{\n    a?: string;\n} & {\n    b?: string;\n}[]",
        "({\n    a?: string;\n} & {\n    b?: string;\n})[]",
    ),
    "items_without_type": Difference(_IMPLIED, "put = unknown", "put = string[]"),
    "object_map_without_type": Difference(
        _IMPLIED, "put = unknown", "put = {\n    [key: string]: string;\n}"
    ),
    "object_numbers_as_names": Difference(
        "fields stand in the order of the schema; JavaScript sorts numbers to the front",
        '    "9"?: string;\n    "10"?: string;\n    b?: string;\n',
        '    b?: string;\n    "10"?: string;\n    "9"?: string;\n',
    ),
    "any_of_same": Difference(_TWICE, "string | string", "string"),
    "all_of_none": Difference(_EMPTY, "put =\n", "put = unknown\n"),
    "all_of_union": Difference(_BOUND, "string | null & string", "(string | null) & string"),
    "any_of_beside_fields": Difference(
        _REQUIRES, "unknown | unknown", "{\n    a?: string;\n    b?: string;\n}"
    ),
    "all_of_conditions": Difference(
        _REQUIRES, "unknown & unknown", "{\n    a?: string;\n    b?: string;\n}"
    ),
    "all_of_beside_fields": Difference(
        "fields of the schema itself hold beside those of its parts",
        "put = {\n    b?: string;\n}",
        "put = {\n    b?: string;\n} & {\n    a?: string;\n}",
    ),
    "reference_to_false": Difference(_SAID, "a?: unknown", "a?: never"),
    "reference_into_list": Difference(_TWICE, "string | string | number", "string | number"),
    "properties_of_list": Difference(
        "a list has no names of fields",
        '{\n    "0"?: unknown;\n    "1"?: unknown;\n}',
        "Record<string, unknown>",
    ),
    "named 'line\\nbreak'": Difference(
        "a line of a comment stays in the comment", "* line\nbreak\n", "* line break\n"
    ),
    "published create_pull_request_review": Difference(
        _WHOLE,
        "comments?: {\n        path: string;\n        position: number;\n        body: string;\n"
        "    } | {\n        path: string;\n        line: number;\n        body: string;\n    }[]",
        "comments?: ({\n        path: string;\n        position: number;\n        body: string;\n"
        "    } | {\n        path: string;\n        line: number;\n        body: string;\n    })[]",
    ),
    "published browser_click": Difference(
        _WHOLE,
        '"Alt" | "Control" | "Meta" | "Shift"[]',
        '("Alt" | "Control" | "Meta" | "Shift")[]',
    ),
}


def normalized(text: str) -> str:
    """Return declarations with single spaces in their comments, and the comments of fields as they are."""
    lines = text.split("\n")
    return "\n".join(" ".join(one.split()) if _is_comment(one) else one for one in lines) + "\n"


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith(("/**", "*"))


def wrong(ours: Mapping[str, str], theirs: Mapping[str, str]) -> set[str]:
    """Return the names of cases that differ and do not say how, or say it and do not."""
    found = set()
    for name, text in theirs.items():
        expected = normalized(text)
        known = DIFFERENCES.get(name)
        if known is not None:
            changed = expected.replace(known.theirs, known.ours)
            expected = changed if changed != expected else "a difference that is none"
        if normalized(ours[name]) != expected:
            found.add(name)
    return found


@pytest.fixture(scope="module")
def theirs() -> dict[str, str]:
    require_oracle()
    tools = corpus()
    return dict(zip(tools, declared([[one] for one in tools.values()]), strict=True))


def ours() -> dict[str, str]:
    return {name: typescript([one]) for name, one in corpus().items()}


def test_nothing_differs_but_what_is_written_down(theirs: dict[str, str]) -> None:
    assert len(SHAPES) >= 110
    assert DIFFERENCES.keys() <= theirs.keys()
    assert wrong(ours(), theirs) == set()


def test_a_catalogue_is_declared_as_theirs_is() -> None:
    require_oracle()
    tools = [
        CodeTool(name=name, description=description, input_schema=takes, output_schema=gives)
        for name, description, takes, gives in PUBLISHED
        if f"published {name}" not in DIFFERENCES
    ]
    assert len(tools) > 10
    assert [normalized(typescript(tools))] == [normalized(one) for one in declared([tools])]


def test_what_we_declare_is_typescript(theirs: dict[str, str]) -> None:
    declarations = [*ours().values(), typescript(list(corpus().values()))]
    assert [found for found in problems(declarations) if found] == []
    empty = [name for name, one in DIFFERENCES.items() if one.why == _EMPTY]
    assert all(problems([theirs[name] for name in empty]))


def test_a_type_that_is_changed_is_seen(
    theirs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        code_interface, "typescript_type", lambda schema: typescript_type(schema).replace("?:", ":")
    )
    found = wrong(ours(), theirs)
    assert {"object_required", "recursive_tree", "published git_log"} <= found
    assert not found & {"string", "enum_strings", "tuple_prefix"}


def test_a_difference_that_is_none_is_seen(
    theirs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DIFFERENCES, "string", Difference("none", "bytes", "string"))
    assert wrong(ours(), theirs) == {"string"}


def test_stubs_of_all_of_them_are_python() -> None:
    tools = list(corpus().values())
    found = [
        node
        for node in ast.walk(ast.parse(python(tools)))
        if isinstance(node, ast.AsyncFunctionDef)
    ]
    assert len(found) == len(tools)
    assert {one.name for one in found if not ast.get_docstring(one)} == {"_"}
