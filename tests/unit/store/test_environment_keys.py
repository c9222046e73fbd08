"""Keys of environments: from files, from the store, made by us."""

from pathlib import Path
from typing import Any

import pytest

from handiwork.config import EnvironmentSettings, SandboxSettings, Settings
from handiwork.model.errors import ConfigError
from handiwork.store import environment_keys
from handiwork.testing.store import MemoryStore


def environment(key_file: Path, **more: Any) -> EnvironmentSettings:
    return EnvironmentSettings(id="env_1", key_file=str(key_file), **more)


async def test_an_environment_key_is_read_from_a_file_of_ours_alone(tmp_path: Path) -> None:
    key, store = tmp_path / "key", MemoryStore()
    with pytest.raises(ConfigError, match="cannot be read"):
        await environment_keys.key_of(environment(key), store)
    key.write_text("sk-ant-oat-1\n")
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        await environment_keys.key_of(environment(key), store)
    key.chmod(0o600)
    assert await environment_keys.key_of(environment(key), store) == "sk-ant-oat-1"
    key.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        await environment_keys.key_of(environment(key), store)
    key.write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        await environment_keys.key_of(environment(key), store)


async def test_an_environment_without_a_key_file_has_its_key_in_the_store() -> None:
    store, named = MemoryStore(), EnvironmentSettings(id="env_1")
    with pytest.raises(ConfigError, match="handiwork init"):
        await environment_keys.key_of(named, store)
    await store.control_secrets.put("environment-key/env_1", "sk-ant-oat-2")
    assert await environment_keys.key_of(named, store) == "sk-ant-oat-2"


async def test_the_local_brains_keys_stay_the_same(tmp_path: Path) -> None:
    store = MemoryStore()
    keys = await environment_keys.local_keys(store)
    assert await environment_keys.local_keys(store) == keys
    assert len({keys.api_key, keys.environment_id, keys.environment_key}) == 3
    await store.control_secrets.put("local-brain-api-key", "another")
    assert (await environment_keys.local_keys(store)).api_key == "another"


async def test_every_environment_has_its_key_and_the_local_one_comes_last(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k")
    (tmp_path / "key").chmod(0o600)
    settings = Settings(
        environments=(environment(tmp_path / "key"),), sandbox=SandboxSettings(policy="web")
    )
    store = MemoryStore()
    assert [
        one.id for one, _ in await environment_keys.environments_with_keys(settings, None, store)
    ] == ["env_1"]
    keys = environment_keys.LocalKeys("api", "env_local", "environment-key")
    (_, first), (local, second) = await environment_keys.environments_with_keys(
        settings, keys, store
    )
    assert (first, second) == ("k", "environment-key")
    assert (local.id, local.policy, local.base_url) == ("env_local", "web", "")
