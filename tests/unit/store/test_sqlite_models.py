"""Models in SQLite: what the store's contract does not see."""

from pathlib import Path

from handiwork.model.language_model import ModelSettings
from handiwork.store.sqlite import open_sqlite_store


async def test_another_tenant_sees_none_of_them(tmp_path: Path) -> None:
    path, key = tmp_path / "control.db", bytes(32)
    settings = ModelSettings(name="m", kind="openai", base_url="http://x")
    store = await open_sqlite_store(path, control_key=key, tenant="one")
    await store.models.put(settings)
    await store.close()
    other = await open_sqlite_store(path, control_key=key, tenant="two")
    assert await other.models.list() == []
    assert await other.models.get("m") is None
    await other.close()
