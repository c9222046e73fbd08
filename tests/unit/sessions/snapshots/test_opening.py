"""The tenant's key: made once, sealed, and never another in its place."""

import os
from pathlib import Path

import pytest

from handiwork.config import Settings, SnapshotSettings
from handiwork.model.errors import ConfigError
from handiwork.observe.metrics import Metrics
from handiwork.sandboxes.images.store import Images
from handiwork.sessions.snapshots.opening import ROOT_KEY, opened_shelf, root_key
from handiwork.testing.blobs import FakeBlobs
from handiwork.testing.store import MemoryStore
from session_world import clock


async def test_the_key_is_made_once() -> None:
    secrets = MemoryStore().control_secrets
    key = await root_key(secrets, os.urandom)
    assert len(key) == 32
    assert await root_key(secrets, os.urandom) == key
    for wrong in ("", "not base64!", "c2hvcnQ="):
        await secrets.put(ROOT_KEY, wrong)
        with pytest.raises(ConfigError, match="is no key"):
            await root_key(secrets, os.urandom)


async def test_images_that_snapshots_stand_on_are_held(tmp_path: Path) -> None:
    images = Images(tmp_path)
    async with opened_shelf(
        Settings(),
        FakeBlobs(),
        MemoryStore(),
        images,
        clock=clock,
        draw=os.urandom,
        metrics=Metrics(),
    ) as background:
        assert background.settings == SnapshotSettings()
        assert images._holders == [background.shelf.standing]
