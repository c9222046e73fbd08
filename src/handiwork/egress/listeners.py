"""The listening sockets of the boundary: made and held by the control plane.

While no proxy serves a listener, whoever connects is accepted and closed at once: nothing hangs in
the backlog and nothing leaves.
"""

import asyncio
import contextlib
import os
import socket
import stat
from pathlib import Path

from handiwork.model.errors import ConfigError

BACKLOG = 512
MAX_PATH_BYTES = 107  # sun_path of Linux, less its final NUL
_ACCEPTS_A_TURN = 64


def runtime_directory(path: Path) -> Path:
    """Make the directory that keeps everybody else from the sockets: ours, mode 0700.

    ConfigError when it is somebody else's, a link, or too deep for a socket's path.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigError(f"{path}: not a directory of ours; remove it or name another")
    path.chmod(0o700)
    if len(os.fsencode(path / ("x" * 24))) > MAX_PATH_BYTES:
        raise ConfigError(f"{path}: too long for a socket; use a directory nearer to the root")
    return path


class Listener:
    """One listening unix socket, with its path; refuses while it is not served."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._refusing = False
        self._loop = asyncio.get_running_loop()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._sock.bind(str(path))
            # The directory keeps others out. The mode must let a sandbox's own id connect through
            # the O_PATH descriptor that the launcher opened: it is checked again at connect().
            path.chmod(0o666)
            self._sock.listen(BACKLOG)
        except OSError:
            self._sock.close()
            raise
        self.refuse()

    def fileno(self) -> int:
        """Return the descriptor, to be duplicated towards the proxy."""
        return self._sock.fileno()

    def refuse(self) -> None:
        """Accept and close whoever comes, from now on."""
        if not self._refusing and self._sock.fileno() >= 0:
            self._refusing = True
            self._loop.add_reader(self._sock.fileno(), self._turn_away)

    def leave_to_proxy(self) -> None:
        """Stop accepting here: a proxy does it."""
        if self._refusing:
            self._refusing = False
            self._loop.remove_reader(self._sock.fileno())

    def close(self) -> None:
        """Close and remove the path."""
        self.leave_to_proxy()
        self._sock.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def _turn_away(self) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                connection, _ = self._sock.accept()
            except OSError:
                return
            connection.close()
