"""What code is shown of tools is what `@cloudflare/codemode` shows of the same, but for what is named here."""

from collections.abc import Mapping
from typing import NamedTuple

import pytest

from code_oracle import INSTALLED, declarations
from code_schemas import CORPUS, Tools
from handiwork.tools import json_types
from handiwork.tools.code_interface import CodeTool, typescript

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not INSTALLED.is_dir(),
        reason="@cloudflare/codemode is not in .peers/oracle: ./run test --all installs it",
    ),
]


class Difference(NamedTuple):
    """Where theirs says the one, ours says the other."""

    why: str
    theirs: str
    ours: str


_TWICE = "a type that a union has twice is written once"
_ALONE = (
    "a union or an intersection is in brackets where `[]` or `&` would bind its last part alone"
)
_NOTHING = "theirs is no type at all"
_IMPLIED = "what a schema without a type can only mean is shown"
_MORE = "what a type among several says further is shown"
_BLANKS = "blanks in a comment are one each"
DIFFERENCES: Mapping[str, Difference] = {
    "field: types of numbers": Difference(_TWICE, "number | number", "number"),
    "field: any of the same": Difference(_TWICE, "string | string", "string"),
    "field: types of array": Difference(_MORE, "unknown[] | null", "string[] | null"),
    "field: types of object": Difference(
        "an object among several types may be null too", "    };\n}", "    } | null;\n}"
    ),
    "field: no type in a list": Difference(_NOTHING, "?: ;", "?: unknown;"),
    "field: any of none": Difference(_NOTHING, "?: ;", "?: never;"),
    "field: all of none": Difference(_NOTHING, "?: ;", "?: unknown;"),
    "field: array of enum": Difference(_ALONE, '"a" | "b"[]', '("a" | "b")[]'),
    "field: array of unions": Difference(_ALONE, "string | null[]", "(string | null)[]"),
    "field: array of any of": Difference(_ALONE, "string | number[]", "(string | number)[]"),
    "field: array of all of": Difference(
        "a part that says nothing of a type is left out", "string & unknown[]", "string[]"
    ),
    "field: all of unions": Difference(
        _ALONE, 'string | number & "a" | "b"', '(string | number) & ("a" | "b")'
    ),
    "field: items without a type": Difference(_IMPLIED, "?: unknown;", "?: string[];"),
    "field: map without a type": Difference(
        _IMPLIED, "?: unknown;", "?: {\n        [key: string]: number;\n    };"
    ),
    "field: odd names": Difference(
        "fields stay in the order of the schema; JavaScript moves those that are numbers",
        '        "1"?: string;\n        "a-b"?: string;\n',
        '        "a-b"?: string;\n        "1"?: string;\n',
    ),
    "name: tab\there": Difference(_BLANKS, "tab\there", "tab here"),
    "tool: described_in_lines": Difference(_BLANKS, "it.  Well", "it. Well"),
    "several": Difference(_BLANKS, "it.  Well", "it. Well"),
}


@pytest.fixture(scope="module")
def theirs() -> Mapping[str, str]:
    return dict(zip(CORPUS, declarations([*CORPUS.values()]), strict=True))


def shown(tools: Tools) -> str:
    return typescript(
        [
            CodeTool(
                name=name,
                description=one.get("description", ""),
                input_schema=one["inputSchema"],
                output_schema=one.get("outputSchema"),
            )
            for name, one in tools.items()
        ]
    )


@pytest.mark.parametrize("name", CORPUS)
def test_it_is_theirs_but_for_what_is_named(theirs: Mapping[str, str], name: str) -> None:
    expected = theirs[name]
    if name in DIFFERENCES:
        difference = DIFFERENCES[name]
        assert expected.count(difference.theirs) == 1, difference.why
        expected = expected.replace(difference.theirs, difference.ours)
    assert shown(CORPUS[name]) == expected


def test_the_corpus_is_large_and_its_differences_few() -> None:
    assert len(CORPUS) > 150
    assert set(DIFFERENCES) < set(CORPUS)
    assert len(DIFFERENCES) < 20


def test_an_interface_that_says_something_else_is_found(
    theirs: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(json_types._SIMPLE, "integer", "bigint")
    found = {
        name for name in CORPUS if name not in DIFFERENCES and shown(CORPUS[name]) != theirs[name]
    }
    assert found >= {"field: integer", "server: sequentialthinking"}
    assert "field: string" not in found
