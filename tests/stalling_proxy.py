"""A way to a brain that can hold posts of results back, and refuse them for good.

with StallingProxy(port) as proxy: clients use `proxy.url`
"""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

REFUSAL = b'{"type":"error","error":{"type":"invalid_request_error","message":"no such call"}}'


class StallingProxy:
    """Forwards requests one by one over connections that each have a connection of their own."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream = upstream_port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._may_pass = threading.Event()
        self._may_pass.set()
        self.refuses = False
        self.held = 0
        self.refused = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def hold(self) -> None:
        """Let no result through until `let_go`; those whose sender has ended then go nowhere."""
        self._may_pass.clear()

    def let_go(self) -> None:
        self._may_pass.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._may_pass.set()
        self._listening.close()
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
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
            self._open |= {client, upstream}
            threading.Thread(target=_pump, args=(upstream, client), daemon=True).start()
            with client.makefile("rb") as requests:
                while head := _head(requests):
                    body = requests.read(_length(head))
                    if b'"user.tool_result"' in body and not self._passes(client):
                        continue
                    upstream.sendall(head + body)

    def _passes(self, client: socket.socket) -> bool:
        """Say whether a result goes on to the brain; answer it where it does not."""
        self.held += 1
        self._may_pass.wait(60)
        if _gone(client):
            return False
        if not self.refuses:
            return True
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
        client.sendall(head + b"content-length: %d\r\n\r\n" % len(REFUSAL) + REFUSAL)
        self.refused += 1
        return False


def _gone(client: socket.socket) -> bool:
    """Say whether who sent the request has ended meanwhile."""
    try:
        return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def _head(requests: "socket.SocketIO") -> bytes:
    lines = []
    while (line := requests.readline()) not in (b"", b"\r\n"):
        lines.append(line)
    return b"".join(lines) + b"\r\n" if lines else b""


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _pump(upstream: socket.socket, client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := upstream.recv(65536):
            client.sendall(data)
        client.shutdown(socket.SHUT_RDWR)
