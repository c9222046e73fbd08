"""The models that a brain serves by name: `scripted`, and those that operators wrote."""

from collections.abc import Iterable, Iterator, Mapping

from handiwork.brains.local.models import Model, Prices, Profile
from handiwork.brains.local.scripted import ScriptedModel
from handiwork.model.language_model import RESERVED, KeyedModel, ModelSettings


class Models(Mapping[str, Model]):
    """A mapping that changes while it is used; a model that did not change stays as it is."""

    def __init__(self) -> None:
        self._models: dict[str, Model] = {RESERVED: ScriptedModel()}
        self._told: dict[str, KeyedModel] = {}

    def __getitem__(self, name: str) -> Model:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    async def replace(self, told: Iterable[KeyedModel]) -> None:
        """Serve these and no others; requests under way of those that go fail."""
        wanted = {each.settings.name: each for each in told}
        gone = [name for name, each in self._told.items() if wanted.get(name) != each]
        closing = [self._models.pop(name) for name in gone]
        for name, each in wanted.items():
            if name not in self._models:
                self._models[name] = made(each)
        self._told = wanted
        for model in closing:
            await model.close()

    async def close(self) -> None:
        """Give up every connection."""
        for model in self._models.values():
            await model.close()


def made(told: KeyedModel) -> Model:
    """Return the adapter of a model. An SDK is loaded when the first model needs it."""
    settings = told.settings
    profile = profile_of(settings)
    if settings.kind == "anthropic":
        from handiwork.brains.local.providers.anthropic import AnthropicModel

        return AnthropicModel(
            base_url=settings.base_url,
            key=told.key,
            model=settings.model or settings.name,
            profile=profile,
        )
    from handiwork.brains.local.providers.openai import OpenAIModel

    return OpenAIModel(
        base_url=settings.base_url,
        key=told.key,
        name=settings.name,
        model=settings.model,
        profile=profile,
    )


def profile_of(settings: ModelSettings) -> Profile:
    """Return what the loop must know of a model."""
    prices = None
    if settings.input_price is not None and settings.output_price is not None:
        read, write = settings.cache_read_price, settings.cache_write_price
        prices = Prices(
            input=settings.input_price,
            output=settings.output_price,
            cache_read=settings.input_price if read is None else read,
            cache_write=settings.input_price if write is None else write,
        )
    return Profile(
        context_tokens=settings.context_tokens,
        max_output_tokens=settings.max_output_tokens,
        prices=prices,
    )
