"""What code gives with a call, by name or in order, read without making more of it than it is. Pure.

A few bytes of JSON can be many of Python: what takes text is read straight into its shape, what may be
anything is bounded first by its bytes, then by its parts.
"""

import functools
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from handiwork.model.code import IN_ORDER
from handiwork.model.errors import ToolFailedError

T = TypeVar("T", bound=msgspec.Struct)
ARGUMENT_KIB = 1024
"""The most of what is given to one of the session's tools."""
PARTS = 20_000
"""The most values in it, those inside of others counted too."""


def converted(name: str, argument: msgspec.Raw, kind: type[T]) -> T:
    """Return what a call of the workspace takes; ToolFailedError says what does not fit."""
    try:
        given = _decoder(kind).decode(argument)
        ordered = given.in_order
        values = {} if ordered is UNSET else _set_of(kind, ordered)
        return msgspec.convert(values | _set_of(kind, given), kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        takes = ", ".join(kind.__struct_fields__)
        raise ToolFailedError(f"codemode.{name}: {error}; it takes one object of {takes}") from None


def named(name: str, argument: msgspec.Raw, names: Sequence[str]) -> dict[str, Any]:
    """Return what one of the session's tools is given, by name; ToolFailedError."""
    data = bytes(argument)
    if len(data) > ARGUMENT_KIB << 10:
        raise ToolFailedError(
            f"codemode.{name}: it was given {len(data)} bytes, {ARGUMENT_KIB} KiB are the most;"
            " write what is long to a file and name that"
        )
    try:
        given = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ToolFailedError(f"codemode.{name}: {error}; call it with one object") from None
    if _parts(given) > PARTS:
        raise ToolFailedError(
            f"codemode.{name}: it was given more than {PARTS} values; give it fewer at once"
        )
    ordered = given.pop(IN_ORDER, ())
    if not isinstance(ordered, (list, tuple)) or len(ordered) > len(names):
        raise ToolFailedError(f"codemode.{name}: it takes {', '.join(names) or 'nothing'}")
    return {**dict(zip(names, ordered, strict=False)), **given}


@functools.cache
def _decoder(kind: type[msgspec.Struct]) -> msgspec.json.Decoder[Any]:
    """Return what reads the fields of a kind, each of which may be missing, and those in order."""
    fields = [(field.name, field.type | UnsetType, UNSET) for field in msgspec.structs.fields(kind)]
    ordered = msgspec.defstruct(
        f"{kind.__name__}InOrder", fields, array_like=True, forbid_unknown_fields=True
    )
    given = msgspec.defstruct(
        f"{kind.__name__}Given",
        [*fields, ("in_order", ordered | UnsetType, UNSET)],
        rename={"in_order": IN_ORDER},
        forbid_unknown_fields=True,
    )
    return msgspec.json.Decoder(given)


def _set_of(kind: type[msgspec.Struct], given: Any) -> dict[str, Any]:
    found = {name: getattr(given, name) for name in kind.__struct_fields__}
    return {name: value for name, value in found.items() if value is not UNSET}


def _parts(value: object) -> int:
    """Count the values in one, itself too, to no more than one above PARTS."""
    count, waiting = 0, [value]
    while waiting and count <= PARTS:
        one = waiting.pop()
        count += 1
        if isinstance(one, dict):
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
    return count
