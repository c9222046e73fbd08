"""Archives are kept while they fit, those used last the longest."""

import os
from pathlib import Path

from handiwork.store.archive_cache import ArchiveCache


async def test_kept_dropped_and_never_mixed_up(tmp_path: Path) -> None:
    cache = ArchiveCache(tmp_path / "new")
    assert await cache.get("a") is None
    await cache.put("a", b"one")
    await cache.put("../b", b"two")
    assert (await cache.get("a"), await cache.get("../b")) == (b"one", b"two")
    assert len(list((tmp_path / "new").iterdir())) == 2
    await cache.drop("a")
    await cache.drop("a")
    assert await cache.get("a") is None


async def test_what_was_used_least_lately_goes_first(tmp_path: Path) -> None:
    cache = ArchiveCache(tmp_path, limit_bytes=3 * (32 + 10))
    for number, key in enumerate("abc"):
        await cache.put(key, key.encode() * 10)
        os.utime(cache._path(key), (number, number))
    assert await cache.get("a")
    await cache.put("d", b"d" * 10)
    assert await cache.get("b") is None
    assert [await cache.get(key) is not None for key in "acd"] == [True, True, True]


async def test_what_does_not_fit_is_not_kept(tmp_path: Path) -> None:
    cache = ArchiveCache(tmp_path, limit_bytes=100)
    await cache.put("a", b"x" * 101)
    assert await cache.get("a") is None


async def test_what_was_damaged_is_not_given_out(tmp_path: Path) -> None:
    cache = ArchiveCache(tmp_path)
    await cache.put("a", b"content")
    path = cache._path("a")
    path.write_bytes(path.read_bytes()[:-1] + b"T")
    assert await cache.get("a") is None
