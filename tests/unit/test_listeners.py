"""Ports and sockets that the control plane listens on."""

import contextlib
import os
import socket
import stat
from pathlib import Path

import pytest

from handiwork import listeners
from handiwork.model.errors import ConfigError
from handiwork.store.layout import Layout


async def test_a_port_in_use_names_its_setting() -> None:
    async with contextlib.AsyncExitStack() as stack:
        taken = listeners.listen("127.0.0.1", 0, "api.port", stack)
        port = taken.getsockname()[1]
        assert listeners.url(taken) == f"http://127.0.0.1:{port}"
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port} .* set api\.port"):
            listeners.listen("127.0.0.1", port, "api.port", stack)
    with socket.create_server(("127.0.0.1", port)):
        pass


@pytest.mark.parametrize("depth", [1, 30])
async def test_the_unix_socket_is_ours_alone_however_long_its_path(
    depth: int, tmp_path: Path
) -> None:
    layout = Layout(tmp_path.joinpath(*["folder"] * depth))
    layout.root.mkdir(parents=True)
    layout.api_socket.touch()
    async with contextlib.AsyncExitStack() as stack:
        listeners.unix(layout, stack)
        mode = layout.api_socket.stat().st_mode
        assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)
        directory = os.open(layout.root, os.O_PATH)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"/proc/self/fd/{directory}/api.sock")
        os.close(directory)
    assert not layout.api_socket.exists()


def test_exits_have_addresses_that_a_socket_can_hold(tmp_path: Path) -> None:
    near, far = Layout(Path("/srv/handiwork")), Layout(tmp_path / ("long" * 25))
    assert listeners.exits(near) == near.exits
    assert len(os.fsencode(listeners.exits(far))) < listeners.MAX_EXITS_BYTES
    assert listeners.exits(far) != listeners.exits(Layout(far.root / "other"))
