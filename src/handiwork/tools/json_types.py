"""JSON Schemas as types that a model reads: of TypeScript and of Python. Pure.

What a schema says that a type cannot (patterns, bounds) is left out: the call is checked all the same.
A schema may be anybody's: depth and length are bounded, and no text of it ends a comment or a string.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

DEPTH = 20
CHARACTERS = 20_000
PYTHON_CHARACTERS = 2_000
_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_ESCAPED = re.compile('["\\\\\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_ANYTHING = "unknown"
_PLAIN = 1e-6, 1e21
"""Between these JavaScript writes a number without an exponent."""
_LARGEST = 1.7976931348623157e308
_SIMPLE = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "null": "null",
}
_OF_PYTHON = {
    "string": "str",
    "number": "float",
    "integer": "int",
    "boolean": "bool",
    "null": "None",
}

Schema = Mapping[str, Any] | bool


def typescript_type(schema: Schema, *, indent: str = "") -> str:
    """Return the type of a schema; `unknown` where it says nothing, or leads back to itself."""
    text = _TypeScript(schema).of(schema, indent, ()).text
    return text if len(text) <= CHARACTERS else _ANYTHING


def comment(text: str) -> str:
    """Return a text as one line that may stand in a comment."""
    return " ".join(_UNSHOWN.sub(" ", str(text)).split()).replace("*/", "*\\/")


class _Type(NamedTuple):
    """A type: the parts of a union, each once; `joined`: its one part is several, each of which holds."""

    parts: tuple[str, ...]
    joined: bool = False

    @property
    def text(self) -> str:
        return " | ".join(self.parts)

    @property
    def alone(self) -> str:
        """It as it may stand before `[]`."""
        return f"({self.text})" if self.joined or len(self.parts) > 1 else self.text


_UNKNOWN = _Type((_ANYTHING,))
_NEVER = _Type(("never",))
_NULL = _Type(("null",))


class _TypeScript:
    """One schema; `inside` are the identities of those that are open, from the outermost in."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._left = CHARACTERS

    def of(self, schema: Any, indent: str, inside: tuple[int, ...]) -> _Type:
        """Return the type of one schema of it."""
        if schema is False:
            return _NEVER
        if not isinstance(schema, Mapping) or len(inside) >= DEPTH or self._left < 0:
            return _UNKNOWN
        if id(schema) in inside:
            return _UNKNOWN
        before = self._left
        found = self._stated(schema, indent, (*inside, id(schema)))
        self._left = min(self._left, before - len(found.text))
        if schema.get("nullable") is True and found not in (_UNKNOWN, _NEVER):
            return _union([found, _NULL])
        return found

    def _stated(self, schema: Mapping[str, Any], indent: str, inside: tuple[int, ...]) -> _Type:
        if "$ref" in schema:
            return self.of(self._referenced(schema["$ref"]), indent, inside)
        combined = self._combined(schema, indent, inside)
        if combined != _UNKNOWN:
            return combined
        if isinstance(schema.get("enum"), (list, tuple)):
            return _union([_Type((_literal(value),)) for value in schema["enum"]])
        if "const" in schema:
            return _Type((_literal(schema["const"]),))
        kinds = schema.get("type", _implied(schema))
        if isinstance(kinds, (list, tuple)):
            found = [self._kind(one, schema, indent, inside) for one in kinds]
            return _union(found) if found else _UNKNOWN
        return self._kind(kinds, schema, indent, inside)

    def _combined(self, schema: Mapping[str, Any], indent: str, inside: tuple[int, ...]) -> _Type:
        """Return what its alternatives or parts say; nothing where they only require fields of it."""
        for name in ("anyOf", "oneOf"):
            if isinstance(schema.get(name), (list, tuple)):
                return _union([self.of(one, indent, inside) for one in schema[name]])
        if isinstance(schema.get("allOf"), (list, tuple)):
            parts = [self.of(one, indent, inside) for one in schema["allOf"]]
            if isinstance(schema.get("properties"), Mapping):
                parts.append(_Type((self._object(schema, indent, inside),)))
            return _all(parts)
        return _UNKNOWN

    def _kind(
        self, kind: Any, schema: Mapping[str, Any], indent: str, inside: tuple[int, ...]
    ) -> _Type:
        if kind == "object":
            return _Type((self._object(schema, indent, inside),))
        if kind == "array":
            return _Type((self._array(schema, indent, inside),))
        return _Type((_SIMPLE.get(str(kind), _ANYTHING),))

    def _array(self, schema: Mapping[str, Any], indent: str, inside: tuple[int, ...]) -> str:
        items = schema.get("items")
        ordered = schema.get("prefixItems", items)
        if isinstance(ordered, (list, tuple)):
            return f"[{', '.join(self.of(one, indent, inside).text for one in ordered)}]"
        if items is None:
            return f"{_ANYTHING}[]"
        return f"{self.of(items, indent, inside).alone}[]"

    def _object(self, schema: Mapping[str, Any], indent: str, inside: tuple[int, ...]) -> str:
        fields = schema.get("properties")
        more = schema.get("additionalProperties")
        required, deeper = _names(schema.get("required")), f"{indent}    "
        lines: list[str] = []
        for name, field in (fields if isinstance(fields, Mapping) else {}).items():
            lines += self._notes(field, deeper)
            key = name if _IDENTIFIER.fullmatch(name) else _quoted(name)
            mark = "" if name in required else "?"
            lines.append(f"{deeper}{key}{mark}: {self.of(field, deeper, inside).text};")
        if more is True or isinstance(more, Mapping):
            lines.append(f"{deeper}[key: string]: {self.of(more, deeper, inside).text};")
        if not lines:
            return "{}" if more is False else f"Record<string, {_ANYTHING}>"
        return "\n".join(("{", *lines, f"{indent}}}"))

    def _notes(self, schema: Any, indent: str) -> list[str]:
        if not isinstance(schema, Mapping):
            return []
        told = [comment(schema["description"])] if schema.get("description") else []
        if schema.get("format"):
            told.append(f"@format {comment(schema['format'])}")
        if len(told) < 2:
            return [f"{indent}/** {one} */" for one in told]
        return [f"{indent}/**", *(f"{indent} * {one}" for one in told), f"{indent} */"]

    def _referenced(self, name: Any) -> Any:
        """Return what a reference within the schema names, True where it names nothing of it."""
        if name != "#" and not str(name).startswith("#/"):
            return True
        found: Any = self._root
        for part in str(name).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and key in found:
                found = found[key]
            elif isinstance(found, (list, tuple)) and _is_place(key, found):
                found = found[int(key)]
            else:
                return True
        return found


def _is_place(key: str, found: Sequence[Any]) -> bool:
    return re.fullmatch(r"0|[1-9][0-9]{0,8}", key) is not None and int(key) < len(found)


def _names(listed: Any) -> Sequence[Any]:
    return listed if isinstance(listed, (list, tuple)) else ()


def _implied(schema: Mapping[str, Any]) -> str:
    """Return the type that a schema without one means."""
    if "properties" in schema or "additionalProperties" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else ""


def _literal(value: Any, depth: int = 0) -> str:
    """Return a value as a type that has no other."""
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, (int, float)):
        return _number(value)
    if isinstance(value, (list, tuple)) and depth < DEPTH:
        return f"[{','.join(_literal(one, depth + 1) for one in value)}]"
    if isinstance(value, Mapping) and depth < DEPTH:
        fields = (f"{_quoted(str(key))}:{_literal(one, depth + 1)}" for key, one in value.items())
        return f"{{{','.join(fields)}}}"
    return _ANYTHING


def _number(value: float) -> str:
    """Return a number as JavaScript writes it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "number"
    size = abs(value)
    if not value or (isinstance(value, int) and size < _PLAIN[1]):
        return str(int(value))
    if size > _LARGEST:
        return "number"
    text = repr(float(value))
    if _PLAIN[0] <= size < _PLAIN[1]:
        return format(Decimal(text), "f").removesuffix(".0")
    digits, _, exponent = text.partition("e")
    return f"{digits}e{int(exponent):+d}"


def _quoted(text: str) -> str:
    def escaped(found: re.Match[str]) -> str:
        return _SHORT.get(found[0], f"\\u{ord(found[0]):04x}")

    return f'"{_ESCAPED.sub(escaped, text)}"'


def _union(types: Sequence[_Type]) -> _Type:
    """Return the type of what is of one of these; of none, `never`."""
    if len(types) == 1:
        return types[0]
    parts = tuple(dict.fromkeys(part for one in types for part in one.parts))
    return _Type(parts, any(one.joined for one in types)) if parts else _NEVER


def _all(types: Sequence[_Type]) -> _Type:
    """Return the type of what is of each of these; of none that says something, `unknown`."""
    types = [one for one in types if one != _UNKNOWN]
    if len(types) < 2:
        return types[0] if types else _UNKNOWN
    return _Type(
        (" & ".join(one.alone if len(one.parts) > 1 else one.text for one in types),), True
    )


def python_type(schema: Schema) -> str:
    """Return the annotation of a schema; `Any` where it says nothing, or too much for one line."""
    text = _python(schema, 0)
    return text if len(text) <= PYTHON_CHARACTERS else "Any"


def _python(schema: Any, depth: int) -> str:
    if not isinstance(schema, Mapping) or depth > 4 or "$ref" in schema or "allOf" in schema:
        return "Any"
    for name in ("anyOf", "oneOf"):
        if isinstance(schema.get(name), (list, tuple)):
            return _python_union([_python(one, depth + 1) for one in schema[name]])
    if isinstance(schema.get("enum"), (list, tuple)):
        return _python_literal(schema["enum"])
    if "const" in schema:
        return _python_literal([schema["const"]])
    kinds = schema.get("type", _implied(schema))
    listed = [kinds] if isinstance(kinds, str) else _names(kinds)
    found = [_python_kind(kind, schema, depth) for kind in listed]
    return _python_union([*found, "None"] if found and schema.get("nullable") is True else found)


def _python_union(parts: Sequence[str]) -> str:
    return "Any" if "Any" in parts or not parts else " | ".join(dict.fromkeys(parts))


def _python_kind(kind: Any, schema: Mapping[str, Any], depth: int) -> str:
    if kind == "array":
        items = schema.get("items")
        return f"list[{_python(items, depth + 1)}]" if isinstance(items, Mapping) else "list[Any]"
    if kind == "object":
        more = schema.get("additionalProperties")
        inner = _python(more, depth + 1) if isinstance(more, Mapping) else "Any"
        return f"dict[str, {inner}]"
    return _OF_PYTHON.get(str(kind), "Any")


def _python_literal(values: Sequence[Any]) -> str:
    if not values or any(isinstance(value, (dict, list, float)) for value in values):
        return "Any"
    return f"Literal[{', '.join(repr(value) for value in values)}]"
