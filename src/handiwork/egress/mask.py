"""Masking: what was injected on a flow does not come back on it.

Each secret value is looked for as it is and in base64, standard and URL alphabets, at the three
alignments it can have inside a longer encoded text (so also after `user:` in Basic credentials).
Hits are overwritten with `*` of the same length, so that every length on the wire stays true.
At an alignment the characters that a secret shares with its neighbours stay: at most four bits
at either end. A hostile upstream can encode a key in ways that no mask knows; binding secrets to
hosts is the control, masking the seat belt.
"""

import base64
from collections.abc import Iterator, Sequence
from typing import NoReturn

_MASK = b"*"
_SHORTEST_CORE = 4

Span = tuple[int, int]


def _aligned(value: bytes, before: int) -> bytes:
    """Return the base64 characters that `value` alone decides when `before` bytes precede it."""
    encoded = base64.b64encode(bytes(before) + value).rstrip(b"=")
    shared_start = (0, 2, 3)[before]
    shared_end = 1 if (before + len(value)) % 3 else 0
    return encoded[shared_start : len(encoded) - shared_end]


def _variants(value: bytes) -> Iterator[bytes]:
    yield value
    for before in range(3):
        core = _aligned(value, before)
        if len(core) >= _SHORTEST_CORE:
            yield core
            yield core.replace(b"+", b"-").replace(b"/", b"_")


def _period(pattern: bytes) -> int:
    """Return the least distance at which two occurrences of the pattern can overlap."""
    borders = [0] * len(pattern)
    matched = 0
    for place in range(1, len(pattern)):
        while matched and pattern[place] != pattern[matched]:
            matched = borders[matched - 1]
        if pattern[place] == pattern[matched]:
            matched += 1
        borders[place] = matched
    return len(pattern) - borders[-1]


def _cover(data: bytes, spans: list[Span]) -> bytes:
    masked = bytearray(data)
    for start, end in spans:
        masked[start:end] = _MASK * (end - start)
    return bytes(masked)


class Mask:
    """Masks one body as it streams, and header blocks at once.

    `feed` holds back only a tail that could be the beginning of a secret, so an event that is
    complete is passed on at once. Splitting the input differently changes nothing in the output.
    """

    def __init__(self, values: Sequence[bytes]) -> None:
        patterns = dict.fromkeys(found for value in values if value for found in _variants(value))
        self._patterns = tuple((pattern, _period(pattern)) for pattern in patterns)
        self._beginnings = frozenset(byte for pattern in patterns for byte in pattern[:-1])
        self._tail = b""
        self._tail_spans: list[Span] = []
        self.hits = 0

    def fresh(self) -> "Mask":
        """Return a mask over the same values for another body, without deriving them again."""
        another = Mask.__new__(Mask)
        another._patterns, another._beginnings = self._patterns, self._beginnings
        another._tail, another._tail_spans, another.hits = b"", [], 0
        return another

    def __repr__(self) -> str:
        return f"Mask({self.hits} hits)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a mask holds secrets: it cannot be copied out of its process")

    def __bool__(self) -> bool:
        """Say whether there is anything to look for."""
        return bool(self._patterns)

    def apply(self, data: bytes) -> bytes:
        """Return a complete text masked; independent of what is being fed."""
        spans = self._find(data, 0)
        return _cover(data, spans) if spans else data

    def feed(self, data: bytes) -> bytes:
        """Take the next piece of the body, return what may be passed on of it."""
        if not self._patterns:
            return data
        known = len(self._tail)
        data = self._tail + data if known else data
        spans = self._tail_spans + self._find(data, known)
        kept = self._held_back(data)
        if not spans and not kept:
            self._tail = b""
            return data
        cut = len(data) - kept
        self._tail = data[cut:]
        self._tail_spans = [(max(a - cut, 0), b - cut) for a, b in spans if b > cut]
        return _cover(data, spans)[:cut] if spans else data[:cut]

    def finish(self, data: bytes = b"") -> bytes:
        """Take the last piece of the body, return it with what was held back: it is over."""
        known = len(self._tail)
        rest, spans = self._tail + data, self._tail_spans
        if data:
            spans = spans + self._find(rest, known)
        self._tail, self._tail_spans = b"", []
        return _cover(rest, spans) if spans else rest

    def _find(self, data: bytes, known: int) -> list[Span]:
        """Return where secrets stand, but for those that end within the first `known` bytes."""
        spans: list[Span] = []
        for pattern, period in self._patterns:
            length = len(pattern)
            start = data.find(pattern, max(known - length + 1, 0))
            while start >= 0:
                spans.append((start, start + length))
                start = data.find(pattern, start + period)
        self.hits += len(spans)
        return spans

    def _held_back(self, data: bytes) -> int:
        """Return the length of the longest end of the data that begins some secret."""
        if not data or data[-1] not in self._beginnings:
            return 0
        longest = 0
        for pattern, _ in self._patterns:
            start = data.find(pattern[:1], max(len(data) - len(pattern) + 1, 0))
            while 0 <= start < len(data) - longest:
                if pattern.startswith(data[start:]):
                    longest = len(data) - start
                    break
                start = data.find(pattern[:1], start + 1)
        return longest
