"""Answers of an upstream: whatever bytes come, in whatever pieces, there is one answer, whole, or a ToolFailedError."""

import asyncio
from typing import Any

import atheris
from target import PLANTED, fuzz, must

with atheris.instrument_imports(include=["handiwork.sandboxes.isolate.exchange"]):
    from handiwork.model.errors import ToolFailedError
    from handiwork.sandboxes.isolate.exchange import PIECE_BYTES, Exchange
    from handiwork.sandboxes.isolate.fetch_rules import HEADER_BYTES, HEADERS, Asked, checked

METHODS = ("GET", "HEAD", "POST")
LOOP = asyncio.new_event_loop()
READS = 10_000


class Socket:
    """Both ends of a connection: gives these pieces, keeps nothing."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self.transport = self
        self.aborted = 0

    async def read(self, size: int) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def write(self, data: bytes) -> None:
        pass

    async def drain(self) -> None:
        pass

    def abort(self) -> None:
        self.aborted += 1


async def answered(pieces: list[bytes], method: str) -> tuple[Any, ...]:
    """Return status, headers and body, or that it failed."""
    end = Socket(pieces)
    exchange = Exchange(end, end)  # type: ignore[arg-type]  # it reads, writes and aborts
    try:
        await exchange._send(checked(Asked(url="http://a.test/", method=method)))
        must(200 <= exchange.status <= 999, "an answer on the way was taken for the answer")
        must(len(exchange.headers) <= HEADERS + 1, "too many headers")
        size = sum(len(name) + len(value) for name, value in exchange.headers)
        must(size <= HEADER_BYTES, "headers that are too large")
        body = b""
        for _ in range(READS):
            piece = await exchange.read()
            if piece is None:
                must(end.aborted == 1, "the connection stays after the end")
                must(await exchange.read() is None, "there is something after the end")
                break
            must(0 < len(piece) <= max(PIECE_BYTES, 1 << 16), "a piece of no size, or too large")
            body += piece
            must(not (PLANTED == "exchange" and len(body) > 8), "planted")
        must(method != "HEAD" or not body, "a body of an answer that has none")
        return exchange.status, tuple(exchange.headers), body
    except ToolFailedError:
        return ("failed",)
    finally:
        exchange.close()


def test(data: bytes) -> None:
    """The first byte says into what pieces the rest is cut, and how it was asked."""
    first, rest = data[0] if data else 0, data[1:]
    method, cut = METHODS[first % 3], 1 + first // 3
    whole = LOOP.run_until_complete(answered([rest] if rest else [], method))
    pieces = [rest[at : at + cut] for at in range(0, len(rest), cut)]
    must(whole == LOOP.run_until_complete(answered(pieces, method)), "pieces give another answer")


if __name__ == "__main__":
    fuzz(test)
