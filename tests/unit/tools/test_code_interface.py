"""What code is shown of its tools."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.tools.code_interface import (
    CodeTool,
    identifier,
    python,
    python_identifier,
    typescript,
)

SEARCH = CodeTool(
    name="search-docs",
    description="Search the docs.\nAll of them.",
    input_schema={
        "type": "object",
        "properties": {
            "q": {"type": "string", "description": "what to look for"},
            "limit": {"type": "integer"},
            "from": {"type": "string"},
        },
        "required": ["q"],
    },
    output_schema={"type": "array", "items": {"type": "string"}},
)


def test_typescript():
    assert typescript([SEARCH, CodeTool(name="delete")]) == (
        "type SearchDocsInput = {\n    /** what to look for */\n    q: string;\n    limit?: number;\n"
        "    from?: string;\n}\n"
        "type SearchDocsOutput = string[]\n"
        "type Delete_Input = unknown\n"
        "type Delete_Output = unknown\n"
        "\n"
        "declare const codemode: {\n"
        "\t/**\n\t * Search the docs. All of them.\n\t * @param input.q - what to look for\n\t */\n"
        "\tsearch_docs: (input: SearchDocsInput) => Promise<SearchDocsOutput>;\n"
        "\n"
        "\t/**\n\t * delete\n\t */\n"
        "\tdelete_: (input: Delete_Input) => Promise<Delete_Output>;\n"
        "}"
    )


def test_python():
    text = python([SEARCH, CodeTool(name="import")])
    assert text == (
        "class codemode:\n"
        "    @staticmethod\n"
        "    async def search_docs(*, q: str, limit: int = ..., **more: Any) -> list[str]:\n"
        '        """Search the docs. All of them.\n'
        '        q - what to look for"""\n'
        "\n"
        "    @staticmethod\n"
        "    async def import_(**more: Any) -> Any:\n"
        '        """import"""'
    )
    ast.parse(text)
    ast.parse(python([]))


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("a-b", "a_b"),
        ("1st", "_1st"),
        ("x.y z", "x_y_z"),
        ("await", "await_"),
        ("日本", "_"),
        ("$a", "$a"),
        ("", "_"),
        ("eval", "eval_"),
        ("a\ufeffb\x1cc", "a_bc"),
    ],
)
def test_a_name_that_code_can_say(name, known):
    assert identifier(name) == known


@pytest.mark.parametrize(
    ("name", "known"), [("a-b", "a_b"), ("lambda", "lambda_"), ("$a", "_a"), ("await", "await_")]
)
def test_a_name_that_python_can_say(name, known):
    assert python_identifier(name) == known


@pytest.mark.parametrize(
    ("name", "kind"),
    [("search_docs", "SearchDocs"), ("1st", "_1st"), ("a_B__c", "A_B_C"), ("__x", "_X")],
)
def test_types_are_named_after_the_tool(name, kind):
    assert f"type {kind}Input = unknown" in typescript([CodeTool(name=name)])


def test_without_tools_there_is_nothing_to_call():
    assert typescript([]) == "declare const codemode: {}"


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


@given(name=TEXT, description=TEXT, field=TEXT, told=TEXT)
def test_no_text_of_a_tool_breaks_out(name, description, field, told):
    schema = {"type": "object", "properties": {field: {"type": "string", "description": told}}}
    tool = CodeTool(name=name, description=description, input_schema=schema)
    compile(python([tool]), "stubs", "exec")
    shown = typescript([tool])
    assert shown.count("declare const codemode") == 1 + (description + told + field + name).count(
        "declare const codemode"
    )


@pytest.mark.parametrize(
    "told", ['say "hi"', '"', '""""', "ends in \\", "a\0b", 'a"""b', "*/ x", "line\u2028line"]
)
def test_python_is_whole_whatever_is_told(told):
    schema = {"type": "object", "properties": {"q": {"type": "string", "description": told}}}
    text = python([CodeTool(name="a", description=told, input_schema=schema)])
    compile(text, "stubs", "exec")
    assert "\0" not in text


@pytest.mark.parametrize(
    "names", [["more"], ["more", "a-b"], ["any_more", "more"], ["\ufb01", "fi"], ["__debug__"]]
)
def test_no_two_parameters_have_one_name(names):
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}}
    compile(python([CodeTool(name="a", input_schema=schema)]), "stubs", "exec")
