"""The interface that code is shown: every tool as a function, for JavaScript and for Python. Pure."""

import keyword
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from handiwork.tools.json_types import comment, python_type, typescript_type

_WORDS = """
abstract arguments await boolean break byte case catch char class const continue debugger default delete
do double else enum eval export extends false final finally float for function goto if implements import
in instanceof int interface let long native new null package private protected public return short static
super switch synchronized this throw throws transient true try typeof undefined var void volatile while
with yield
"""
RESERVED = frozenset(_WORDS.split())
"""Words that mean something in JavaScript, or did in an edition of it: a tool is not called so."""
_PARTS = re.compile("[-. \t\n\v\f\r\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]")


class CodeTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as code calls it. `input_schema` is that of its one argument, an object."""

    name: str
    description: str = ""
    input_schema: Mapping[str, Any] | bool = True
    output_schema: Mapping[str, Any] | bool | None = None


def identifier(name: str) -> str:
    """Return the name that code calls a tool by."""
    known = re.sub(r"[^A-Za-z0-9_$]", "", _PARTS.sub("_", name)) or "_"
    if known[0].isdigit():
        known = f"_{known}"
    return f"{known}_" if known in RESERVED else known


def typescript(tools: Sequence[CodeTool]) -> str:
    """Return declarations of all of them: a type for what each takes and gives, and `codemode`."""
    types: list[str] = []
    functions: list[str] = []
    for tool in tools:
        name = identifier(tool.name)
        kind = _pascal(name)
        output = True if tool.output_schema is None else tool.output_schema
        types.append(f"type {kind}Input = {typescript_type(tool.input_schema)}")
        types.append(f"type {kind}Output = {typescript_type(output)}")
        notes = "\n".join(f"\t * {line}" for line in (_described(tool), *_parameters(tool)))
        functions.append(
            f"\n\t/**\n{notes}\n\t */\n\t{name}: (input: {kind}Input) => Promise<{kind}Output>;\n"
        )
    return "\n".join((*types, "", f"declare const codemode: {{{''.join(functions)}}}")).lstrip()


def python(tools: Sequence[CodeTool]) -> str:
    """Return stubs of all of them: `async def` of a class that `codemode` is of."""
    lines = ["class codemode:"]
    for tool in tools:
        lines.append("    @staticmethod")
        lines.append(
            f"    async def {python_identifier(tool.name)}({_python_fields(tool)}) -> {_given(tool)}:"
        )
        told = (line.removeprefix("@param input.") for line in _parameters(tool))
        lines.append(f'        """{_documented([_described(tool), *told])}"""')
        lines.append("")
    return "\n".join(lines).rstrip() if tools else "class codemode: ..."


def _documented(told: Sequence[str]) -> str:
    """Return lines as they may stand in a docstring."""
    text = "\n        ".join(told).replace("\\", "\\\\").replace('"""', "'''")
    return f'{text[:-1]}\\"' if text.endswith('"') else text


def _described(tool: CodeTool) -> str:
    return comment(tool.description) or comment(tool.name)


def _fields(tool: CodeTool) -> Mapping[str, Any]:
    schema = tool.input_schema
    found = schema.get("properties") if isinstance(schema, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _parameters(tool: CodeTool) -> list[str]:
    return [
        comment(f"@param input.{name} - {field['description']}")
        for name, field in _fields(tool).items()
        if isinstance(field, Mapping) and field.get("description")
    ]


def _pascal(name: str) -> str:
    joined = re.sub("_([a-z])", lambda found: found[1].upper(), name)
    return re.sub("^[a-z]", lambda found: found[0].upper(), joined)


def _given(tool: CodeTool) -> str:
    return "Any" if tool.output_schema is None else python_type(tool.output_schema)


def python_identifier(name: str) -> str:
    """Return the name that Python code calls a tool by."""
    known = identifier(name).replace("$", "_")
    return f"{known}_" if keyword.iskeyword(known) else known


def _python_fields(tool: CodeTool) -> str:
    """Return keyword parameters, those that are required first; names that Python has not go by **more."""
    schema = tool.input_schema
    required = schema.get("required") if isinstance(schema, Mapping) else None
    required = required if isinstance(required, list) else []
    named = {name: field for name, field in _fields(tool).items() if _is_name(name)}
    needed = [f"{name}: {python_type(field)}" for name, field in named.items() if name in required]
    optional = [
        f"{name}: {python_type(field)} = ..."
        for name, field in named.items()
        if name not in required
    ]
    rest = "more" if "more" not in named else "any_more"
    more = [f"**{rest}: Any"] if len(named) < len(_fields(tool)) or not named else []
    stars = ["*"] if needed or optional else []
    return ", ".join((*stars, *needed, *optional, *more))


def _is_name(name: str) -> bool:
    """Say whether Python takes it as the name of a parameter, and as it is."""
    plain = unicodedata.normalize("NFKC", name) == name and name not in ("__debug__", "any_more")
    return plain and name.isidentifier() and not keyword.iskeyword(name)
