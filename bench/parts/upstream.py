"""A small HTTPS server in a process of its own, that counts the requests with the right key.

`python upstream.py CERTIFICATE KEY` reads the bearer key from standard input, prints its port, and
serves until standard input ends. GET /count tells `RIGHT WRONG`.
"""

import asyncio
import ssl
import sys

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b"


class Connection(asyncio.Protocol):
    """One client's connection; requests have no body."""

    def __init__(self, wanted: bytes, counts: list[int]) -> None:
        self._wanted = wanted
        self._counts = counts
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while b"\r\n\r\n" in self._data:
            head, self._data = self._data.split(b"\r\n\r\n", 1)
            self._transport.write(self._answer(head))

    def _answer(self, head: bytes) -> bytes:
        if head.startswith(b"GET /count "):
            body = b"%d %d" % tuple(self._counts)
        else:
            right = self._wanted in head + b"\r\n"
            self._counts[not right] += 1
            body = b"right" if right else b"wrong"
        return ANSWER % (len(body), body)


async def serve(certificate: str, private_key: str) -> None:
    wanted = b"Bearer " + sys.stdin.readline().strip().encode() + b"\r\n"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private_key)
    counts = [0, 0]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(wanted, counts), "127.0.0.1", 0, ssl=context
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:3]))
