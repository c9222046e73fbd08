"""What a Debian image is built from: a small TOML file. Parsed and checked here; pure."""

import re
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from handiwork.model.errors import ConfigError

MAX_RECIPE_BYTES = 4 * 1024 * 1024
_SUITE = re.compile(r"[a-z][a-z0-9-]{1,39}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,99}(=[A-Za-z0-9.+~:-]{1,99})?")
_MODE = re.compile(r"0?[0-7]{3}")


class RecipeFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file to add, root's; `mode` is octal, without bits that give rights."""

    path: Annotated[str, Meta(min_length=2, max_length=1024)]
    content: Annotated[str, Meta(max_length=1024 * 1024)]
    mode: str = "0644"


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Debian system of essential packages and apt, these packages, files and variables."""

    suite: str
    packages: Annotated[tuple[str, ...], Meta(max_length=1000)] = ()
    files: Annotated[tuple[RecipeFile, ...], Meta(max_length=100)] = ()
    env: Annotated[Mapping[str, str], Meta(max_length=100)] = {}


def parse_recipe(text: bytes) -> Recipe:
    """Return the recipe that a TOML text is; ConfigError says what is wrong with it."""
    if len(text) > MAX_RECIPE_BYTES:
        raise ConfigError(f"the recipe is larger than {MAX_RECIPE_BYTES} bytes")
    try:
        recipe = msgspec.toml.decode(text, type=Recipe)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the recipe is not right: {error}") from None
    if not _SUITE.fullmatch(recipe.suite):
        raise ConfigError(f"the recipe's suite {recipe.suite[:80]!r} is none, such as 'bookworm'")
    for package in recipe.packages:
        if not _PACKAGE.fullmatch(package):
            raise ConfigError(f"the recipe's package {package[:80]!r} is no name of one")
    for file in recipe.files:
        _check_file(file)
    return recipe


def _check_file(file: RecipeFile) -> None:
    parts = file.path.split("/")
    if parts[0] or not all(parts[1:]) or {".", ".."} & set(parts) or "\0" in file.path:
        raise ConfigError(f"the recipe's file {file.path[:80]!r} is not a plain absolute path")
    if not _MODE.fullmatch(file.mode):
        raise ConfigError(
            f"the recipe's file {file.path[:80]!r}: mode {file.mode[:20]!r} is not like 0644"
        )
