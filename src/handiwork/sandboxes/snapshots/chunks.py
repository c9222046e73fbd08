"""Where contents are cut: by what they hold, so that what is inserted moves no later cut."""

from collections.abc import Iterator

from pyfastcdc import FastCDC

MIN_BYTES = 16 * 1024
AVERAGE_BYTES = 64 * 1024
MAX_BYTES = 256 * 1024


def cuts(data: bytes | bytearray | memoryview, *, last: bool) -> Iterator[tuple[int, int]]:
    """Yield offset and length of each chunk.

    Unless this is the `last` window of its stream, its tail is left out where the next window might
    cut it otherwise: go on from the end of what was yielded.
    """
    chunker = FastCDC(AVERAGE_BYTES, min_size=MIN_BYTES, max_size=MAX_BYTES)
    total = len(data)
    for chunk in chunker.cut_buf(data):
        if chunk.offset + chunk.length == total and not last and chunk.length < MAX_BYTES:
            return
        yield chunk.offset, chunk.length
