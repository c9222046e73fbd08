"""Masking: what was injected on a flow does not come back on it.

Each secret value is looked for in the forms of `encodings`: as it is, reversed, in base64 at the
three alignments it can have inside a longer encoded text (so also after `user:` in Basic
credentials), hexadecimal, and escaped as in URLs and JSON. Hits are overwritten with `*` of the
same length, so that every length on the wire stays true. At an alignment the characters that a
secret shares with its neighbours stay: at most four bits at either end. A hostile upstream can
encode a key in ways that no mask knows; binding secrets to hosts is the control, masking the
seat belt.
"""

from collections.abc import Sequence
from typing import NoReturn

from handiwork.egress.encodings import Form, Spellings, forms
from handiwork.egress.search import LONG_BYTES, holds

_MASK = b"*"

Span = tuple[int, int]


def _cover(data: bytes, spans: list[Span]) -> bytes:
    masked = bytearray(data)
    for start, end in spans:
        start = max(start, 0)
        masked[start:end] = _MASK * (end - start)
    return bytes(masked)


def _after(data: bytes, place: int, pieces: Sequence[Spellings]) -> int:
    """Return where the pieces that follow a place end, at the furthest; -1 if they do not."""
    if pieces and not data.startswith(pieces[0], place):
        return -1
    places = {place}
    for spellings in pieces:
        places = {
            at + len(spelling)
            for at in places
            for spelling in spellings
            if data.startswith(spelling, at)
        }
        if not places:
            return -1
    return max(places)


def _before(data: bytes, place: int, pieces: Sequence[Spellings]) -> int:
    """Return where the pieces that lead to a place begin, at the earliest; -1 if they do not."""
    if pieces and not data.endswith(pieces[0], 0, place):
        return -1
    places = {place}
    for spellings in pieces:
        places = {
            at - len(spelling)
            for at in places
            for spelling in spellings
            if data.endswith(spelling, 0, at)
        }
        if not places:
            return -1
    return min(places)


def _begins(data: bytes, place: int, pieces: Sequence[Spellings]) -> bool:
    """Say whether the pieces could begin at a place and go on behind the end of the data."""
    places = {place}
    for spellings in pieces:
        following = set()
        for at in places:
            rest = data[at:]
            for spelling in spellings:
                if rest.startswith(spelling):
                    following.add(at + len(spelling))
                if len(rest) < len(spelling) and spelling.startswith(rest):
                    return True
        places = following
    return False


def _span_at(data: bytes, place: int, form: Form) -> Span | None:
    """Return the whole of the form around its key at a place, if it stands there."""
    if not form.folded:
        start = _before(data, place, form.before)
        end = _after(data, place + len(form.key), form.after) if start >= 0 else -1
        return (start, end) if end >= 0 else None
    whole = form.pieces[0][0]
    start = place - (len(form.before[0][0]) if form.before else 0)
    end = start + len(whole)
    return (start, end) if start >= 0 and data[start:end].lower() == whole else None


class Mask:
    """Masks one body as it streams, and header blocks at once.

    `feed` holds back only a tail that could be the beginning of a secret, so an event that is
    complete is passed on at once. Splitting the input differently changes nothing in the output.
    """

    def __init__(self, values: Sequence[bytes]) -> None:
        found = dict.fromkeys(form for value in values if value for form in forms(value))
        self._forms = tuple(found)
        self._escaped = tuple(
            (escape, tuple((form.key, form) for form in found if form.escape == escape))
            for escape in (b"", b"%", b"\\")
        )
        self._inner = frozenset(byte for form in found for byte in form.inner)
        self._tail = b""
        self._tail_spans: list[Span] = []
        self.hits = 0

    def fresh(self) -> "Mask":
        """Return a mask over the same values for another body, without deriving them again."""
        another = Mask.__new__(Mask)
        another._forms, another._inner = self._forms, self._inner
        another._escaped = self._escaped
        another._tail, another._tail_spans, another.hits = b"", [], 0
        return another

    def __repr__(self) -> str:
        return f"Mask({self.hits} hits)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a mask holds secrets: it cannot be copied out of its process")

    def __bool__(self) -> bool:
        """Say whether there is anything to look for."""
        return bool(self._forms)

    def apply(self, data: bytes) -> bytes:
        """Return a complete text masked; independent of what is being fed."""
        spans = self._find(data, 0)
        self.hits += len({start for start, _ in spans})
        return _cover(data, spans) if spans else data

    def feed(self, data: bytes) -> bytes:
        """Take the next piece of the body, return what may be passed on of it."""
        if not self._forms:
            return data
        data, spans = self._with_tail(data)
        kept = self._held_back(data)
        if not spans and not kept:
            self._tail = b""
            return data
        cut = len(data) - kept
        self._tail = data[cut:]
        self._tail_spans = [(start - cut, end - cut) for start, end in spans if end > cut]
        return _cover(data, spans)[:cut] if spans else data[:cut]

    def finish(self, data: bytes = b"") -> bytes:
        """Take the last piece of the body, return it with what was held back: it is over."""
        if not data and not self._tail:
            return data
        data, spans = self._with_tail(data)
        self._tail, self._tail_spans = b"", []
        return _cover(data, spans) if spans else data

    def _with_tail(self, data: bytes) -> tuple[bytes, list[Span]]:
        """Return what is at hand now, and where secrets stand in it."""
        known = len(self._tail)
        if not known:
            spans = self._find(data, 0)
            if spans:
                self.hits += len({start for start, _ in spans})
            return data, spans
        data, before = self._tail + data, self._tail_spans
        spans = self._find(data, known)
        self.hits += len({start for start, _ in spans} - {start for start, _ in before})
        return data, before + spans

    def _find(self, data: bytes, known: int) -> list[Span]:
        """Return where secrets stand, but for those that end within the first `known` bytes."""
        spans: list[Span] = []
        short = len(data) < LONG_BYTES
        for escape, forms_of_it in self._escaped:
            if escape not in data:
                continue
            for key, form in forms_of_it:
                if key in data if short else holds(data, key):
                    spans += self._find_form(data, known, form)
        return spans

    def _find_form(self, data: bytes, known: int, form: Form) -> list[Span]:
        if not form.key:
            return self._find_folded(data, known, form)
        spans: list[Span] = []
        key, length = form.key, len(form.key)
        alone = not (form.before or form.after)
        place = data.find(key, max(known - form.longest + 1, 0))
        while place >= 0:
            span = (place, place + length) if alone else _span_at(data, place, form)
            if span is not None and span[1] > known:
                spans.append(span)
            place = data.find(key, place + 1)
        return spans

    def _find_folded(self, data: bytes, known: int, form: Form) -> list[Span]:
        """Find a form that has no key, for want of anything that is alike in both cases."""
        whole = form.pieces[0][0]
        spans, data = [], data.lower()
        place = data.find(whole, max(known - len(whole) + 1, 0))
        while place >= 0:
            spans.append((place, place + len(whole)))
            place = data.find(whole, place + 1)
        return spans

    def _held_back(self, data: bytes) -> int:
        """Return the length of the longest end of the data that begins some secret."""
        if not data or data[-1] not in self._inner:
            return 0
        last, longest = data[-1], 0
        for form in self._forms:
            if last not in form.inner:
                continue
            tail = data[1 - form.longest :] if form.longest > 1 else b""
            tail = tail.lower() if form.folded else tail
            for first in form.firsts:
                place = tail.find(first)
                while 0 <= place < len(tail) - longest:
                    if _begins(tail, place, form.pieces):
                        longest = len(tail) - place
                        break
                    place = tail.find(first, place + 1)
        return longest
