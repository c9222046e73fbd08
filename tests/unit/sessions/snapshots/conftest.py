"""A world whose sandboxes' files are kept elsewhere."""

from pathlib import Path

import pytest

from keeping_world import KeepingWorld


@pytest.fixture
async def keeping(tmp_path: Path) -> KeepingWorld:
    return KeepingWorld(tmp_path)
