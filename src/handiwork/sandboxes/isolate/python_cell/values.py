"""Values of Python as JSON: what a call takes, and what a run gives. Pure."""

import base64
import dataclasses
import datetime
import decimal
import json
import math
from collections.abc import Mapping
from typing import Any

MOST_DEPTH = 200
_TIMES = (datetime.datetime, datetime.date, datetime.time)


def to_json(value: object) -> str:
    """Return a value as JSON text; ValueError for one that is nested too deeply, or in a circle.

    Bytes are {"$bytes": base64}, sets and tuples lists, NaN null; what JSON has no word for is its repr.
    """
    try:
        return _dumped(value)
    except (TypeError, ValueError):  # a key that is no text, NaN, a circle
        return _dumped(_plain(value, MOST_DEPTH))


def _dumped(value: object) -> str:
    return json.dumps(
        value, default=_other, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )


def _other(value: object) -> Any:
    """Return what stands for a value that JSON does not know."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, (set, frozenset)):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    if isinstance(value, _TIMES):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, BaseException):
        return {"name": type(value).__name__, "message": str(value)}
    return repr(value)


def _plain(value: object, depth: int) -> Any:
    """Return it of nothing but what JSON has."""
    if depth < 0:
        raise ValueError("the value is nested too deeply, or in a circle")
    if isinstance(value, dict):
        return {_key(key): _plain(one, depth - 1) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one, depth - 1) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value.bit_length() < 64 else hex(value)
    if value is None or isinstance(value, (str, bool)):
        return value
    return _plain(_other(value), depth - 1)


def _key(key: object) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool):
        return json.dumps(key)
    return str(key)
