"""Listeners refuse while nobody serves them, and lie where only we can go."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from handiwork.egress.listeners import Listener, runtime_directory
from handiwork.model.errors import ConfigError


async def test_a_new_listener_closes_whoever_comes(tmp_path: Path):
    listener = Listener(tmp_path / "a.s")
    for _ in range(100):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "a.s"))
        assert await reader.read() == b""
        writer.close()
    listener.close()
    assert not (tmp_path / "a.s").exists()


async def test_left_to_a_proxy_it_does_not_accept_and_can_take_it_back(tmp_path: Path):
    listener = Listener(tmp_path / "a.s")
    listener.leave_to_proxy()
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "a.s"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(), 0.05)
    listener.refuse()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    listener.close()
    listener.close()
    with pytest.raises(OSError), socket.socket(socket.AF_UNIX) as late:
        late.connect(str(tmp_path / "a.s"))


def test_the_directory_is_ours_alone(tmp_path: Path):
    path = runtime_directory(tmp_path / "run")
    assert path.stat().st_mode & 0o777 == 0o700
    path.chmod(0o755)
    assert runtime_directory(path).stat().st_mode & 0o777 == 0o700


def test_a_link_is_refused(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="not a directory of ours"):
        runtime_directory(tmp_path / "run")


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="too long"):
        runtime_directory(tmp_path / ("d" * 100))


@pytest.mark.root
def test_anothers_directory_is_refused(tmp_path: Path):
    (tmp_path / "run").mkdir()
    os.chown(tmp_path / "run", 12345, 12345)
    with pytest.raises(ConfigError, match="not a directory of ours"):
        runtime_directory(tmp_path / "run")
