"""Which models the local brain is told of, and with which keys."""

import pytest

from handiwork.brains.model_settings import keyed_models, secret_name
from handiwork.config import BrainModelSettings
from handiwork.model.errors import ConfigError
from handiwork.model.language_model import ModelSettings
from handiwork.testing.store import MemoryStore

URL = "http://127.0.0.1:1"


def written(name: str, **more) -> BrainModelSettings:
    return BrainModelSettings(name=name, kind="openai", base_url=URL, **more)


def read_key(path: str, where: str) -> str:
    assert where == "local_brain.models[a].key_file"
    return f"key of {path}".replace(" ", "-")


async def test_the_file_comes_first_and_keys_of_the_store_are_found():
    store = MemoryStore()
    for name in ("a", "c"):
        await store.models.put(ModelSettings(name=name, kind="anthropic", base_url=URL))
        await store.control_secrets.put(secret_name(name), f"kept-{name}")
    await store.control_secrets.put(secret_name("b"), "kept-b")
    told = await keyed_models([written("a", key_file="/f"), written("b")], store, read_key)
    assert [(each.settings.name, each.settings.kind, each.key) for each in told] == [
        ("a", "openai", "key-of-/f"),
        ("b", "openai", "kept-b"),
        ("c", "anthropic", "kept-c"),
    ]


async def test_what_is_wrong_in_the_file_stops_the_start():
    store = MemoryStore()
    with pytest.raises(ConfigError, match="twice"):
        await keyed_models([written("a"), written("a")], store, read_key)
    with pytest.raises(ConfigError, match="scripted"):
        await keyed_models([written("scripted")], store, read_key)
    with pytest.raises(ConfigError, match="without spaces"):
        await keyed_models([written("a", key_file="/f")], store, lambda _p, _w: "a b")
