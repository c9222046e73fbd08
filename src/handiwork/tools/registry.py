"""Which tools there are: a function becomes one by `@tool`; its signature is its schema."""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec

from handiwork.model.errors import ConfigError, ConflictError, ToolFailedError
from handiwork.model.tool import Block, TextBlock, well_formed
from handiwork.tools.context import ToolContext

STOCK = frozenset({"bash", "read", "write", "edit", "glob", "grep"})
"""Names of the agent toolset that the hands serve."""

RESERVED = STOCK | {"web_fetch", "web_search"}
_RESERVED_PREFIXES = ("mcp__", "ant__")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")

Returned = str | Block | tuple[Block, ...]
ToolFunction = Callable[..., Awaitable[Returned]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool. `ordered`: calls of a thread run one after another, in the order they came.

    `timeout_seconds` None: the operator's default. `keeps_time`: the tool ends in the seconds of its
    context by itself, and is not cut short.
    """

    name: str
    description: str
    function: ToolFunction
    input_type: type[msgspec.Struct]
    ordered: bool = False
    timeout_seconds: float | None = None
    keeps_time: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of its input: an object, without references."""
        _, parts = msgspec.json.schema_components([self.input_type])
        schema = dict(parts[self.input_type.__name__])
        schema.pop("title", None)
        return schema

    async def call(self, context: ToolContext, given: Mapping[str, Any]) -> tuple[Block, ...]:
        """Check the input and run; ToolFailedError says what the model can do about it."""
        try:
            checked = msgspec.convert(given, self.input_type)
        except msgspec.ValidationError as error:
            raise ToolFailedError(f"{self.name}: invalid input: {error}") from None
        arguments = {field: getattr(checked, field) for field in self.input_type.__struct_fields__}
        return _blocks(await self.function(context, **arguments))


def tool(
    name: str,
    *,
    description: str = "",
    ordered: bool = False,
    timeout_seconds: float | None = None,
    keeps_time: bool = False,
) -> Callable[[ToolFunction], Tool]:
    """Make a tool of `async def f(context, *, field: type = default, …)`.

    Returns text or blocks; raises ToolFailedError for what the model may act on. ConfigError for a
    name or a signature that no brain would take.
    """
    if not _NAME.fullmatch(name) or name.startswith(_RESERVED_PREFIXES):
        raise ConfigError(
            f"tool name {name!r} is not valid: use 1-128 of A-Z, a-z, 0-9, '_', '-',"
            f" not starting with {' or '.join(_RESERVED_PREFIXES)}"
        )

    def decorate(function: ToolFunction) -> Tool:
        return Tool(
            name=name,
            description=description or inspect.getdoc(function) or "",
            function=function,
            input_type=_input_type(name, function),
            ordered=ordered,
            timeout_seconds=timeout_seconds,
            keeps_time=keeps_time,
        )

    return decorate


class Registry:
    """Tools by name. Names of the stock toolset are for its own tools only."""

    def __init__(self, tools: tuple[Tool, ...] = ()) -> None:
        self._tools = {one.name: one for one in tools}

    def add(self, one: Tool) -> None:
        """Add a custom tool; ConflictError when its name is taken or reserved."""
        if one.name in RESERVED or one.name in self._tools:
            raise ConflictError(f"the tool name {one.name!r} is taken or reserved; choose another")
        self._tools[one.name] = one

    def get(self, name: str) -> Tool | None:
        """Return the tool, or None."""
        return self._tools.get(name)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())


def _input_type(name: str, function: ToolFunction) -> type[msgspec.Struct]:
    """Return a struct of the function's parameters after the context; unknown keys are errors."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    hints = get_type_hints(function)
    fields: list[Any] = []
    for parameter in parameters:
        if parameter.name not in hints or parameter.kind is inspect.Parameter.VAR_KEYWORD:
            raise ConfigError(f"tool {name!r}: parameter {parameter.name!r} needs a plain type")
        if parameter.default is inspect.Parameter.empty:
            fields.append((parameter.name, hints[parameter.name]))
        else:
            fields.append((parameter.name, hints[parameter.name], parameter.default))
    return msgspec.defstruct("Input", fields, kw_only=True, frozen=True, forbid_unknown_fields=True)


def _blocks(returned: Returned) -> tuple[Block, ...]:
    if isinstance(returned, str):
        return (TextBlock(text=well_formed(returned)),)
    blocks = returned if isinstance(returned, tuple) else (returned,)
    return tuple(_clean(block) for block in blocks) or (TextBlock(text=well_formed("")),)


def _clean(block: Block) -> Block:
    return TextBlock(text=well_formed(block.text)) if isinstance(block, TextBlock) else block
