"""Keys of environments: those of the local brain, which we make, and the operator's."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from handiwork.config import EnvironmentSettings, Settings
from handiwork.model.errors import ConfigError
from handiwork.model.ids import new_id
from handiwork.store.layout import read_private
from handiwork.store.protocol import Store

ENVIRONMENT_KEY = "environment-key/"
"""What the name of the control secret with an environment's key begins with; its id follows."""


@dataclass(frozen=True)
class LocalKeys:
    """Keys of the local brain, made at the first start."""

    api_key: str
    environment_id: str
    environment_key: str


async def local_keys(store: Store) -> LocalKeys:
    """Return the local brain's keys from the control secrets, made where they are missing."""
    values = []
    for name, made in [
        ("local-brain-api-key", f"hwlb_{secrets.token_urlsafe(32)}"),
        ("local-brain-environment-id", new_id("env", secrets.token_bytes(15))),
        ("local-brain-environment-key", f"hwlbenv_{secrets.token_urlsafe(32)}"),
    ]:
        value = await store.control_secrets.get(name)
        if value is None:
            await store.control_secrets.put(name, made)
        values.append(value or made)
    return LocalKeys(*values)


async def environments_with_keys(
    settings: Settings, keys: LocalKeys | None, store: Store
) -> list[tuple[EnvironmentSettings, str]]:
    """Return every environment we serve with its key; the local brain's last."""
    found = [(one, await key_of(one, store)) for one in settings.environments]
    if keys:
        local = EnvironmentSettings(
            id=keys.environment_id,
            base_url="",
            key_file="",
            tier=settings.sandbox.tier,
            policy=settings.sandbox.policy,
        )
        found.append((local, keys.environment_key))
    return found


async def key_of(environment: EnvironmentSettings, store: Store) -> str:
    """Return the key of its file, else of the store; ConfigError."""
    if environment.key_file:
        return _key_in_file(environment)
    key = await store.control_secrets.get(ENVIRONMENT_KEY + environment.id)
    if key is None:
        raise ConfigError(
            f"environments[{environment.id}] has no key: name a key_file in handiwork.toml,"
            " or run `handiwork init`"
        )
    return key


def _key_in_file(environment: EnvironmentSettings) -> str:
    path = Path(environment.key_file)
    return read_private(path, f"environments[{environment.id}].key_file {path}")
