"""What the schema of a custom tool may not have: the service refuses it, so it is refused here too."""

import re
from typing import Any

from handiwork.brains.local.errors import invalid

MAX_DEPTH = 64
_PROPERTY = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_REFERENCES = ("$ref", "$defs", "definitions")
_CHOICES = ("anyOf", "oneOf", "allOf")
_DATA = frozenset({"const", "default", "enum", "example", "examples"})
"""What these hold is a value, and no schema."""


def check_schema(tool: str, schema: dict[str, Any]) -> None:
    """Raise a 400 that names the tool, what its schema may not have, and what to write."""
    where = f"tools: the input_schema of {tool!r}"
    if schema.get("type", "object") != "object":
        raise invalid(f"{where}: its type must be 'object'")
    for key in _CHOICES:
        if key in schema:
            raise invalid(
                f"{where}: no {key} at its top; write one object, or put it in a property"
            )
    waiting: list[tuple[Any, int]] = [(schema, 0)]
    while waiting:
        found, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise invalid(f"{where}: it is deeper than {MAX_DEPTH} levels")
        waiting += [(inner, depth + 1) for inner in _inner(where, found)]


def _inner(where: str, found: Any) -> list[Any]:
    """Return the schemas in a schema, or in a list of them, once it is checked itself."""
    if isinstance(found, list):
        return found
    if not isinstance(found, dict):
        return []
    for key in _REFERENCES:
        if key in found:
            raise invalid(f"{where}: no {key}; write what it stands for in its place")
    properties = found.get("properties")
    inner = [value for key, value in found.items() if key not in _DATA and key != "properties"]
    if isinstance(properties, dict):
        for key in properties:
            if not _PROPERTY.fullmatch(key):
                raise invalid(f"{where}: the property {key[:80]!r} must match {_PROPERTY.pattern}")
        inner += properties.values()
    return inner
