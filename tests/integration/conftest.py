"""Fixtures of the integration tests: one control plane that tests of a file share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane_process import ControlPlane, running


@pytest.fixture(scope="module")
def shared_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with running(tmp_path_factory.mktemp("plane")) as plane:
        yield plane


@pytest.fixture
def control_plane(shared_plane: ControlPlane) -> Path:
    """The data directory of a control plane that runs."""
    return shared_plane.data
