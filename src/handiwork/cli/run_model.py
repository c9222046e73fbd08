"""`handiwork run --model anthropic|openai`: the model defined on the way, from its address and key."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import msgspec

from handiwork import config
from handiwork.cli.output import warn
from handiwork.client.handiwork import Handiwork
from handiwork.model.errors import ConfigError, HandiworkError, UnauthorizedError
from handiwork.model.language_model import check_model, check_model_key
from handiwork.model.wire import ModelBody
from handiwork.store.layout import read_private

DEFAULT_KEY = "else OPENAI_API_KEY or ANTHROPIC_API_KEY"
ADDRESSES = {
    "anthropic": "https://api.anthropic.com",
    "openai": "https://api.openai.com/v1",
}
DEFAULT_IDS = {"anthropic": "claude-sonnet-5-5", "openai": "gpt-6.1-sol"}
"""What is asked for at a provider's own address when nothing is named."""
LIST_SECONDS = 10.0
MAX_LIST_BYTES = 4 * 1024 * 1024


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """What was typed about the model."""

    kind: str
    base_url: str = ""
    model_id: str = ""
    key_file: Path | None = None


async def define(client: Handiwork, given: Provider) -> str:
    """Return the model's name at the local brain; a kind is defined there first.

    ConfigError: an address, id or key beside a model that was defined before.
    """
    if given.kind not in ADDRESSES:
        if given.base_url or given.model_id or (given.kind and given.key_file):
            raise ConfigError(
                f"--base-url, --model-id and --key-file define a model of a kind: --model"
                f" {' or '.join(sorted(ADDRESSES))}; {given.kind[:80]!r} is defined already, or not"
            )
        return given.kind
    key = _key(given)
    base_url = (given.base_url or ADDRESSES[given.kind]).rstrip("/")
    if not key and not given.base_url:
        raise ConfigError(
            f"{base_url} needs a key: set {given.kind.upper()}_API_KEY, or give --key-file"
        )
    # Before the address is asked anything: what cannot be an address or a key must not be tried.
    check_model(_body(given.kind, base_url, given.model_id, key).settings(given.kind))
    check_model_key(given.kind, key)
    model_id = given.model_id or await _id_of(given, base_url, key)
    name = _name(given.kind, base_url, model_id)
    await client.models.put(name, _body(given.kind, base_url, model_id, key))
    return name


def _body(kind: str, base_url: str, model_id: str, key: str) -> ModelBody:
    body = {"kind": kind, "base_url": base_url, "model": model_id, "key": key}
    try:
        return msgspec.convert(body, ModelBody)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the model: {error}") from None


def _key(given: Provider) -> str:
    if given.key_file is not None:
        return read_private(given.key_file, f"--key-file {given.key_file}")
    return config.provider_key(given.kind)


async def _id_of(given: Provider, base_url: str, key: str) -> str:
    """Return the id to ask for: the endpoint's one, its first of several, or the provider's."""
    if not given.base_url:
        return DEFAULT_IDS[given.kind]
    found = await _listed(given.kind, base_url, key)
    if not found:
        warn(f"{base_url} lists no models: asked for as {given.kind!r}; --model-id names another")
        return given.kind
    if len(found) > 1:
        warn(f"{base_url} has {len(found)} models: {found[0]} is used; --model-id names another")
    return found[0]


async def _listed(kind: str, base_url: str, key: str) -> list[str]:
    """Return the ids that the endpoint lists; none where it cannot tell."""
    path = "/v1/models" if kind == "anthropic" else "/models"
    headers = {"x-api-key": key, "anthropic-version": "2023-06-01"} if kind == "anthropic" else {}
    if key and kind == "openai":
        headers = {"authorization": " ".join(("Bearer", key))}
    try:
        async with asyncio.timeout(LIST_SECONDS):
            answer = await _fetched(base_url + path, {**headers, "accept-encoding": "identity"})
    except httpx2.ConnectError as error:
        raise HandiworkError(
            f"nothing answers at {base_url}: {error}; see that the model is served there"
        ) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError):
        return []
    try:
        data = msgspec.json.decode(answer, type=dict[str, Any]).get("data")
    except (ValueError, RecursionError):
        return []
    ids = [one.get("id") for one in data if isinstance(one, dict)] if isinstance(data, list) else []
    return [
        one for one in ids if isinstance(one, str) and 0 < len(one) <= 256 and one.isprintable()
    ]


async def _fetched(url: str, headers: dict[str, str]) -> bytes:
    """Return the body of a good answer, else or where it grows too long nothing."""
    is_local = urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")
    gathered = bytearray()
    async with (
        httpx2.AsyncClient(trust_env=not is_local, timeout=LIST_SECONDS) as http,
        http.stream("GET", url, headers=headers) as answer,
    ):
        if answer.status_code == 401:
            raise UnauthorizedError(f"{url} refused the key (401); see that it is the right one")
        if not answer.is_success:
            return b""
        async for piece in answer.aiter_raw():
            gathered += piece
            if len(gathered) > MAX_LIST_BYTES:
                return b""
    return bytes(gathered)


def _name(kind: str, base_url: str, model_id: str) -> str:
    """Return a name of its own for each address and id: a run must not change another's model."""
    mark = hashlib.sha256(f"{base_url}\n{model_id}".encode()).hexdigest()[:8]
    return f"{kind}-{mark}"
