"""What the control plane listens on, bound before anything starts: a port in use stops the start."""

import hashlib
import os
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from handiwork import process
from handiwork.config import Settings
from handiwork.model.errors import ConfigError
from handiwork.store.layout import Layout

MAX_EXITS_BYTES = 80
"""Of a directory of sockets: an address holds 107, and names take some."""


@dataclass(frozen=True)
class Ports:
    """The TCP listeners."""

    api: socket.socket
    brain: socket.socket | None


def bind(settings: Settings, stack: AsyncExitStack) -> Ports:
    """Bind the ports of the settings; ConfigError names the setting of one that is in use."""
    api = listen(settings.api.host, settings.api.port, "api.port", stack)
    local = settings.local_brain
    brain = listen(local.host, local.port, "local_brain.port", stack) if local.enabled else None
    return Ports(api, brain)


def listen(host: str, port: int, setting: str, stack: AsyncExitStack) -> socket.socket:
    """Bind one port until the stack ends."""
    try:
        listener = socket.create_server((host, port), backlog=512)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be listened on ({error.strerror}): it is in use or not ours;"
            f" stop what uses it, or set {setting} in handiwork.toml"
        ) from None
    stack.callback(listener.close)
    return listener


def unix(layout: Layout, stack: AsyncExitStack) -> socket.socket:
    """Bind the CLI's socket; its directory is 0700, so that only our user and root can name it."""
    layout.api_socket.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stack.callback(layout.api_socket.unlink, missing_ok=True)
    stack.callback(listener.close)
    # Bound by way of a descriptor: the path may be longer than a socket's address holds.
    directory = os.open(layout.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{layout.api_socket.name}")
    finally:
        os.close(directory)
    layout.api_socket.chmod(0o600)
    listener.listen(128)
    return listener


def exits(layout: Layout) -> Path:
    """Return a directory for egress sockets, near enough to the root for a socket's address."""
    if len(os.fsencode(layout.exits)) < MAX_EXITS_BYTES:
        return layout.exits
    name = hashlib.sha256(os.fsencode(layout.root)).hexdigest()[:12]
    return Path("/run" if process.is_root() else "/tmp") / f"handiwork-{os.geteuid()}-{name}"  # noqa: S108  a name of our own below it, made 0700


def url(listener: socket.socket) -> str:
    """Return where a TCP listener is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://{host}:{port}"
