"""The models of the local brain, as operators write them. The key is never among it."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from handiwork.model.errors import ConfigError
from handiwork.model.redacted import shown_as_repr

RESERVED = "scripted"
"""The name of the model that every local brain has."""
MAX_KEY_CHARS = 4096

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")

Tokens = Annotated[int, Meta(ge=256, le=100_000_000)]
Dollars = Annotated[float, Meta(ge=0, le=1_000_000)]


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model behind an HTTP API. `model` is its provider's id; empty: the name.

    Prices are US dollars for a million tokens; without those of input and output a session's cost
    is not known, and it can have no budget. A cache's prices default to the price of input.
    """

    name: str
    kind: Literal["anthropic", "openai"]
    base_url: str
    model: str = ""
    context_tokens: Tokens = 200_000
    max_output_tokens: Tokens = 8_192
    input_price: Dollars | None = None
    output_price: Dollars | None = None
    cache_read_price: Dollars | None = None
    cache_write_price: Dollars | None = None


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the API tells of a model; there is no way to read its key back.

    `source`: `api` when it can be changed there, `file` when it stands in handiwork.toml.
    """

    settings: ModelSettings
    source: Literal["api", "file"]
    has_key: bool


class KeyedModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model with its key, for the process that asks it; empty: it needs none."""

    settings: ModelSettings
    key: str = ""

    def __repr__(self) -> str:
        return f"KeyedModel({self.settings.name!r})"

    __rich_repr__ = shown_as_repr


def check_model(settings: ModelSettings) -> None:
    """Raise ConfigError unless the model can be asked and its numbers fit together."""
    where = f"model {settings.name[:80]!r}"
    if not _NAME.fullmatch(settings.name) or settings.name == RESERVED:
        raise ConfigError(
            f"{where}: a name is 1 to 128 of a-z, A-Z, 0-9, '.', '_', ':', '@', '-', beginning with"
            f" a letter or digit, and not {RESERVED!r}"
        )
    if not settings.model.isprintable() or len(settings.model) > 256:
        raise ConfigError(f"{where}: model must be printable and at most 256 characters")
    _check_url(where, settings.base_url)
    if settings.max_output_tokens > settings.context_tokens // 2:
        raise ConfigError(
            f"{where}: max_output_tokens {settings.max_output_tokens} must be at most half of"
            f" context_tokens {settings.context_tokens}"
        )
    if (settings.input_price is None) != (settings.output_price is None):
        raise ConfigError(f"{where}: input_price and output_price are given both or neither")


def check_model_key(name: str, key: str) -> None:
    """Raise ConfigError, which never repeats the key, unless it can stand in a header."""
    if len(key) > MAX_KEY_CHARS or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"model {name[:80]!r}: the key must be printable ASCII without spaces, at most"
            f" {MAX_KEY_CHARS} characters"
        )


def _check_url(where: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        usable = usable and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
        parts = urlsplit("")
    if not usable or not url.isascii() or not url.isprintable() or len(url) > 2048:
        raise ConfigError(f"{where}: base_url must be an http or https address with a host")
    if parts.username is not None or parts.query or parts.fragment or " " in url:
        raise ConfigError(
            f"{where}: base_url must have no user, query or fragment; the key is given apart"
        )
