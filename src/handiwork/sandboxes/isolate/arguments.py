"""What a call of guest code is given: by name, or in order as people write it. Pure."""

from typing import Any, TypeVar

import msgspec

from handiwork.model.code import IN_ORDER
from handiwork.model.errors import ToolFailedError

T = TypeVar("T", bound=msgspec.Struct)
_FIELDS: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])


class Boxed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"data": "$bytes"}):
    """Bytes, as cells send them."""

    data: bytes


Content = str | Boxed
"""What is written: text or bytes."""


def content(given: Content) -> bytes:
    """Return its bytes; what is no UTF-8 cannot come here as text."""
    return given.data if isinstance(given, Boxed) else given.encode()


def boxed(data: bytes) -> Boxed:
    """Return bytes as cells take them."""
    return Boxed(data)


def taken(name: str, argument: msgspec.Raw, kind: type[T]) -> T:
    """Return the arguments of a call as a struct of this kind; ToolFailedError names what is wrong."""
    try:
        return msgspec.json.decode(_by_name(argument, kind), type=kind)
    except msgspec.DecodeError as error:
        raise ToolFailedError(f"{name}: {error}; it takes {_described(kind)}") from None


def _by_name(argument: msgspec.Raw, kind: type[msgspec.Struct]) -> Any:
    if IN_ORDER.encode() not in bytes(argument)[:64]:
        return argument
    fields = _FIELDS.decode(argument)
    ordered = _LIST.decode(fields.pop(IN_ORDER))
    names = kind.__struct_encode_fields__
    if len(ordered) > len(names):
        raise msgspec.ValidationError(f"{len(ordered)} arguments are too many")
    return msgspec.json.encode({**dict(zip(names, ordered, strict=False)), **fields})


def _described(kind: type[msgspec.Struct]) -> str:
    fields = msgspec.structs.fields(kind)
    return ", ".join(one.encode_name + ("" if one.required else "?") for one in fields) or "nothing"
