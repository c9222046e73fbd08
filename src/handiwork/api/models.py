"""`/api/models`: the models that the local brain asks; keys go in, none comes out."""

from litestar import Router, delete, get, put
from litestar.params import FromPath, JSONBody

from handiwork.api.control import Control, Injected
from handiwork.brains.model_settings import secret_name, settings_of
from handiwork.model.errors import ConfigError, ConflictError, NotFoundError
from handiwork.model.language_model import ModelInfo, ModelSettings, check_model, check_model_key
from handiwork.model.wire import Listing, ModelBody

MAX_MODELS = 100


@get("/")
async def list_models(control: Injected) -> Listing[ModelInfo]:
    """List the models of the file, then those that were written here."""
    return Listing(data=tuple(await _all(control)))


async def _all(control: Control) -> list[ModelInfo]:
    written = [settings_of(each) for each in control.settings.local_brain.models]
    with_file = {each.name for each in control.settings.local_brain.models if each.key_file}
    found = [await _info(control, each, "file", each.name in with_file) for each in written]
    names = {each.name for each in written}
    kept = [each for each in await control.store.models.list() if each.name not in names]
    return [*found, *[await _info(control, each) for each in kept]]


@get("/{name:str}")
async def get_model(control: Injected, name: FromPath[str]) -> ModelInfo:
    """Find one."""
    for found in await _all(control):
        if found.settings.name == name:
            return found
    raise NotFoundError(f"there is no model {name[:80]!r}")


@put("/{name:str}")
async def put_model(control: Injected, name: FromPath[str], data: JSONBody[ModelBody]) -> ModelInfo:
    """Write a model; the local brain asks it from now on.

    Without a key the one before stays, for the address that it was given for: it goes to no other.
    """
    settings = data.settings(name)
    check_model(settings)
    _refuse_those_of_the_file(control, name)
    if data.key is not None:
        check_model_key(name, data.key)
    else:
        await _check_kept_key(control, settings)
    others = [each for each in await control.store.models.list() if each.name != name]
    if len(others) >= MAX_MODELS:
        raise ConflictError(f"there are {MAX_MODELS} models; delete one first")
    if data.key is not None:
        await control.store.control_secrets.put(secret_name(name), data.key)
    await control.store.models.put(settings)
    await control.models_changed()
    return await _info(control, settings)


@delete("/{name:str}", status_code=204)
async def delete_model(control: Injected, name: FromPath[str]) -> None:
    """Forget a model and its key; turns of agents that name it fail from now on."""
    _refuse_those_of_the_file(control, name)
    await control.store.models.delete(name)
    await control.store.control_secrets.delete(secret_name(name))
    await control.models_changed()


async def _check_kept_key(control: Control, settings: ModelSettings) -> None:
    """ConfigError when a key that is kept would be shown to another address."""
    before = await control.store.models.get(settings.name)
    is_same = before is not None and before.base_url == settings.base_url
    if not is_same and await control.store.control_secrets.get(secret_name(settings.name)):
        raise ConfigError(
            f"model {settings.name!r}: its base_url changes, so give `key` again, or an empty one"
        )


def _refuse_those_of_the_file(control: Control, name: str) -> None:
    if any(each.name == name for each in control.settings.local_brain.models):
        raise ConflictError(f"the model {name!r} stands in handiwork.toml; change it there")


async def _info(
    control: Control, settings: ModelSettings, source: str = "api", has_key: bool = False
) -> ModelInfo:
    held = await control.store.control_secrets.get(secret_name(settings.name))
    return ModelInfo(
        settings=settings,
        source="file" if source == "file" else "api",
        has_key=has_key or bool(held),
    )


routes = Router("/api/models", route_handlers=[list_models, get_model, put_model, delete_model])
