"""A world for sessions without walls."""

from pathlib import Path

import pytest

from session_world import World


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return World(tmp_path)
