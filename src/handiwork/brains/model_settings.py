"""Which models the local brain asks: those of handiwork.toml and those written over the API."""

from collections.abc import Callable, Sequence

import msgspec

from handiwork.config import BrainModelSettings
from handiwork.model.errors import ConfigError
from handiwork.model.language_model import KeyedModel, ModelSettings, check_model, check_model_key
from handiwork.store.protocol import Store


def secret_name(name: str) -> str:
    """Return the name of the control secret that holds a model's key."""
    return f"model-key/{name}"


def settings_of(written: BrainModelSettings) -> ModelSettings:
    """Return a model of the file without where its key lies."""
    fields = msgspec.structs.asdict(written)
    del fields["key_file"]
    return ModelSettings(**fields)


async def keyed_models(
    written: Sequence[BrainModelSettings], store: Store, read_key: Callable[[str, str], str]
) -> list[KeyedModel]:
    """Return all models with their keys; the file's come before the API's of the same name.

    `read_key` reads a key file and is told which setting names it. ConfigError says what is wrong
    in the file.
    """
    found: dict[str, KeyedModel] = {}
    for each in written:
        settings = settings_of(each)
        where = f"local_brain.models[{each.name}]"
        if each.name in found:
            raise ConfigError(f"{where}: the name is used twice")
        check_model(settings)
        key = read_key(each.key_file, f"{where}.key_file") if each.key_file else ""
        check_model_key(each.name, key)
        key = key or await store.control_secrets.get(secret_name(each.name)) or ""
        found[each.name] = KeyedModel(settings=settings, key=key)
    for settings in await store.models.list():
        if settings.name not in found:
            key = await store.control_secrets.get(secret_name(settings.name)) or ""
            found[settings.name] = KeyedModel(settings=settings, key=key)
    return list(found.values())
