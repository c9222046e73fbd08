"""Placeholders on disk: every field comes back, and each tenant sees its own."""

from pathlib import Path

from handiwork.model.placeholder import KeptPlaceholder
from handiwork.model.secret import SealedSecret
from handiwork.store.sqlite import open_sqlite_store

SEALED = SealedSecret(
    name="vault-key",
    version=7,
    hosts=("a.example.org", "*.example.com"),
    ephemeral_key=b"\x00\xff",
    nonce=b"\x01",
    ciphertext=b"\x02",
)


async def test_every_field_survives_and_tenants_are_apart(tmp_path: Path) -> None:
    kept = KeptPlaceholder(variable="TOKEN", text="hwph_x", sealed=SEALED)
    for tenant in ("one", "two"):
        store = await open_sqlite_store(tmp_path / "c.db", control_key=bytes(32), tenant=tenant)
        try:
            assert await store.placeholders.list("sesn_1") == []
            await store.placeholders.put("sesn_1", kept)
            assert await store.placeholders.list("sesn_1") == [kept]
        finally:
            await store.close()
