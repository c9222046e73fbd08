"""What code calls as `codemode.NAME(...)`: the files of the workspace, and the session's own tools."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from handiwork.model.errors import ToolFailedError
from handiwork.model.tool import Block, TextBlock
from handiwork.tools import workspace
from handiwork.tools.code_arguments import converted, named
from handiwork.tools.code_interface import CodeTool, identifier, python_identifier, typescript
from handiwork.tools.context import ToolContext
from handiwork.tools.json_types import comment
from handiwork.tools.registry import Tool

SEARCHED_WORDS = 32
NOT_FROM_CODE = ("execute", "run_file")
"""Tools that run code: code may import what it wants to run."""


class _Path(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str


class _Write(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    content: str


class _Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    old_string: str
    new_string: str


class _List(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str = "/"
    limit: int = workspace.LISTED


class _Find(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pattern: str


class _Grep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pattern: str
    path: str | None = None


class _Delete(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    recursive: bool = False


async def _read(context: ToolContext, given: _Path) -> str:
    return await workspace.text_of(context, given.path)


async def _write(context: ToolContext, given: _Write) -> int:
    return await workspace.write_text(context, given.path, given.content)


async def _edit(context: ToolContext, given: _Edit) -> None:
    await workspace.edit_text(context, given.path, given.old_string, given.new_string)


async def _list(context: ToolContext, given: _List) -> list[dict[str, Any]]:
    found = await workspace.listed(context, given.path, given.limit)
    return [
        {"path": one.path, "type": "directory" if one.is_directory else "file", "size": one.size}
        for one in found
    ]


async def _find(context: ToolContext, given: _Find) -> list[str]:
    return await workspace.found_by(context, given.pattern)


async def _grep(context: ToolContext, given: _Grep) -> list[str]:
    return await workspace.grepped(context, given.pattern, given.path)


async def _delete(context: ToolContext, given: _Delete) -> None:
    await workspace.remove(context, given.path, recursive=given.recursive)


class _Call(msgspec.Struct, frozen=True):
    """A call of the workspace: what it takes, what it does, and what it gives, as code is told."""

    takes: type[msgspec.Struct]
    does: Callable[[ToolContext, Any], Awaitable[Any]]
    description: str
    gives: Mapping[str, Any]


_TEXTS = {"type": "array", "items": {"type": "string"}}
_NOTHING = {"type": "null"}
_ENTRY = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "type": {"enum": ["directory", "file"]},
        "size": {"type": "integer"},
    },
    "required": ["path", "type", "size"],
}
CALLS: Mapping[str, _Call] = {
    "read": _Call(_Path, _read, "The text of a file.", {"type": "string"}),
    "write": _Call(_Write, _write, "Write a file; how many bytes it has.", {"type": "integer"}),
    "edit": _Call(_Edit, _edit, "Replace a text that a file has exactly once.", _NOTHING),
    "list": _Call(
        _List, _list, "What a directory holds, by name.", {"type": "array", "items": _ENTRY}
    ),
    "find": _Call(_Find, _find, "Paths of files that a glob pattern fits, as **/*.ts.", _TEXTS),
    "grep": _Call(
        _Grep,
        _grep,
        "Lines path:line:text that a regular expression is found in; path is a glob pattern of files.",
        _TEXTS,
    ),
    "delete": _Call(_Delete, _delete, "Delete a file, or a directory if recursive.", _NOTHING),
}
"""By the name that code calls them by."""
_RESERVED = {identifier(name): name for name in CALLS}
"""What interfaces name those whose name is a word of JavaScript."""


def workspace_tools() -> list[CodeTool]:
    """Return the calls of the workspace as code is shown them."""
    return [
        CodeTool(
            name=name,
            description=call.description,
            input_schema=_schema(call.takes),
            output_schema=call.gives,
        )
        for name, call in CALLS.items()
    ]


def session_tools(tools: Sequence[Tool]) -> list[CodeTool]:
    """Return a session's tools as code is shown them: each gives its text."""
    return [
        CodeTool(
            name=one.name,
            description=one.description,
            input_schema=one.schema,
            output_schema={"type": "string"},
        )
        for one in tools
    ]


class _Search(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    query: str
    limit: int = 20


class _Describe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str


class CodeCalls:
    """The calls of one run: files, the session's tools, and `search` and `describe` of these."""

    def __init__(self, context: ToolContext) -> None:
        self._context = context
        self._tools = {
            identifier(one.name): one
            for one in context.tools
            if one.name not in NOT_FROM_CODE and one.name not in CALLS
        }
        self._by_python = {python_identifier(one.name): one for one in self._tools.values()}
        self._finding = {"search": self._search, "describe": self._describe}

    async def serve(self, name: str, argument: msgspec.Raw) -> Any:
        """Answer one; ToolFailedError says what the code can do about it."""
        call = CALLS.get(name) or CALLS.get(_RESERVED.get(name, ""))
        if call is not None:
            return await call.does(self._context, converted(name, argument, call.takes))
        found = self._found(name)
        if found is None and name in self._finding:
            return self._finding[name](argument)
        if found is None:
            known = ", ".join((*CALLS, *self._tools))
            raise ToolFailedError(f"codemode.{name[:80]}: there is no such tool; there are {known}")
        given = named(name, argument, found.input_type.__struct_fields__)
        return _value(await self._context.call_tool(found.name, given))

    def _found(self, name: str) -> Tool | None:
        """Return the tool of a name as either language spells it, or as it is declared."""
        spelled = self._tools.get(name) or self._by_python.get(name)
        return spelled or self._tools.get(identifier(name))

    def _search(self, argument: msgspec.Raw) -> list[dict[str, str]]:
        given = converted("search", argument, _Search)
        words = given.query.lower().split()[:SEARCHED_WORDS]
        ranked = []
        for name, one in self._tools.items():
            text = f"{name} {one.name} {one.description}".lower()
            hits = sum(word in text for word in words) + 2 * sum(word in name for word in words)
            if hits or not words:
                ranked.append((-hits, name, one))
        ranked.sort(key=lambda found: found[:2])
        return [
            {"name": name, "description": comment(one.description)[:200]}
            for _, name, one in ranked[: max(0, given.limit)]
        ]

    def _describe(self, argument: msgspec.Raw) -> str:
        given = converted("describe", argument, _Describe)
        if given.name in CALLS:
            return typescript([one for one in workspace_tools() if one.name == given.name])
        found = self._found(given.name)
        if found is None:
            raise ToolFailedError(
                f"codemode.describe: there is no tool {given.name[:80]!r}; codemode.search finds them"
            )
        return typescript(session_tools([found]))


def _value(blocks: Sequence[Block]) -> Any:
    """Return a result as code gets it: its text, or its parts where it is more than text."""
    texts = [block.text for block in blocks if isinstance(block, TextBlock)]
    if len(texts) == len(blocks):
        return "\n".join(texts)
    return [msgspec.to_builtins(block) for block in blocks]


def _schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    _, parts = msgspec.json.schema_components([kind])
    schema = dict(parts[kind.__name__])
    schema.pop("title", None)
    return schema
