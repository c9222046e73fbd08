"""`hw.models`: the models that the local brain asks; keys are written, never read."""

from handiwork.client.link import Link, part
from handiwork.model.language_model import ModelInfo
from handiwork.model.wire import Listing, ModelBody


class Models:
    """Models of the local brain, by the name that agents write as their model."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def list(self) -> list[ModelInfo]:
        """List those of handiwork.toml and those that were written here."""
        return list((await self._link.get("/api/models", Listing[ModelInfo])).data)

    async def get(self, name: str) -> ModelInfo:
        """Find one; NotFoundError."""
        return await self._link.get(f"/api/models/{part(name)}", ModelInfo)

    async def put(self, name: str, body: ModelBody) -> ModelInfo:
        """Write one; it can be asked at once. Without a key in the body the one before stays."""
        return await self._link.send("PUT", f"/api/models/{part(name)}", ModelInfo, body)

    async def delete(self, name: str) -> None:
        """Forget one and its key."""
        await self._link.send("DELETE", f"/api/models/{part(name)}", type(None))
