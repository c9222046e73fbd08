"""A way to a server that is slow, or stops in the middle of what is sent, and goes on when it is told.

with SlowLink(port) as link: clients use `link.port`
"""

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self


class SlowLink:
    """Forwards bytes; once `stall_after` was called, so many more go to the server and then none.

    `bytes_per_second` bounds what goes to the server, of all connections together.
    """

    def __init__(self, upstream_port: int, *, bytes_per_second: float = float("inf")) -> None:
        self._upstream = upstream_port
        self._pace = bytes_per_second
        self.forwarded = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._left: int | None = None
        self.stalled = threading.Event()
        self._over = threading.Event()

    @property
    def port(self) -> int:
        return self._listening.getsockname()[1]

    def stall_after(self, size: int) -> None:
        with self._lock:
            self._left = size

    def go_on(self) -> None:
        """Let new connections through; those that stalled are cut, so that what they sent is torn."""
        with self._lock:
            self._left = None
        self.stalled.clear()
        self._cut()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._listening.close()
        self._cut()

    def _cut(self) -> None:
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            client,
            socket.create_connection(("127.0.0.1", self._upstream)) as upstream,
        ):
            pair = {client, upstream}
            self._open |= pair
            back = threading.Thread(target=_pump, args=(upstream, client), daemon=True)
            back.start()
            try:
                self._forward(client, upstream)
            finally:
                self._open -= pair

    def _forward(self, client: socket.socket, upstream: socket.socket) -> None:
        while data := client.recv(65536):
            with self._lock:
                if self._left is not None:
                    data = data[: self._left]
                    self._left -= len(data)
                self.forwarded += len(data)
                if data:
                    time.sleep(len(data) / self._pace)
            if data:
                upstream.sendall(data)
            else:
                self.stalled.set()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)
