"""Fixtures of the integration tests: a control plane that tests of a file share, an exit of a sandbox."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from control_plane_process import BRAINLESS, SLEEPLESS, ControlPlane, running
from handiwork.model.sandbox import SandboxExit


@pytest.fixture(scope="module")
def shared_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with running(tmp_path_factory.mktemp("plane")) as plane:
        yield plane


@pytest.fixture(scope="module")
def driven_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One that serves no brain: for tests that ask for sandboxes and what else its API has."""
    with running(tmp_path_factory.mktemp("plane"), config=SLEEPLESS + BRAINLESS) as plane:
        yield plane


@pytest.fixture
async def way_out(tmp_path: Path) -> AsyncIterator[SandboxExit]:
    """An exit that lets everything out to one who answers `its own`."""

    async def answer(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readexactly(24)
        writer.write(b"\0" + b"its own")
        writer.close()

    path = tmp_path / "exit.sock"
    async with await asyncio.start_unix_server(answer, path):
        path.chmod(0o666)
        yield SandboxExit(socket_path=str(path), ca_certificate="ITS OWN CA\n")
