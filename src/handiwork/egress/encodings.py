"""The ways in which a secret value may be written in an answer, each as something to look for.

A form is pieces in a row, each in one of its spellings: `k"1` is `k`, then `"`, `\\"`, `%22` or
`\\u0022`, then `1`. One piece is the key: a plain search for it says where to look closer, so text
without it costs no more than that search. Letters, digits and `._-` are escaped by nobody who
does not escape everything; a form of its own stands for where everything is.
"""

import base64
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

_NEVER_ESCAPED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_SHORT = {
    '"': b'\\"',
    "\\": b"\\\\",
    "/": b"\\/",
    "\b": b"\\b",
    "\f": b"\\f",
    "\n": b"\\n",
    "\r": b"\\r",
    "\t": b"\\t",
    " ": b"+",
}
_URL_ALPHABET = {"+": b"-", "/": b"_"}
_SHORTEST = 4
_HEX_KEY_UNITS = 2  # a shorter key would stand too often in what is hexadecimal anyway

Spellings = tuple[bytes, ...]


class Form(NamedTuple):
    """Pieces on either side of a key, those `before` it from the key outwards.

    `folded` pieces are in lower case and stand for either; where no key is alike in both cases,
    it is empty and the whole is to be looked for in lower case. Without its `escape` in a text,
    there is no need to look.
    """

    key: bytes
    escape: bytes
    before: tuple[Spellings, ...]
    after: tuple[Spellings, ...]
    folded: bool
    pieces: tuple[Spellings, ...]
    longest: int
    firsts: bytes
    inner: frozenset[int]


def forms(value: bytes) -> Iterator[Form]:
    """Yield what to look for of a value: raw, reversed, escaped, base64 and hexadecimal."""
    yield from _escaped(_characters(value))
    for before in range(3):
        core = _aligned(value, before)
        if len(core) >= _SHORTEST:
            yield from _escaped([(char, char.encode()) for char in core], _URL_ALPHABET)
    if len(value) >= _SHORTEST:
        if value != value[::-1]:
            yield _form([(value[::-1],)], 0)
        yield _folded([b"%02x" % byte for byte in value], b"", _HEX_KEY_UNITS)
    yield _folded([b"%%%02x" % byte for byte in value], b"%", 1)
    units = [unit for char, _ in _characters(value) for unit in _utf16(char)]
    yield _folded([b"\\u%04x" % unit for unit in units], b"\\", 1)


def _characters(value: bytes) -> list[tuple[str, bytes]]:
    """Return the characters of a value, each with its bytes; one for each byte if not in UTF-8."""
    try:
        return [(char, char.encode()) for char in value.decode()]
    except UnicodeDecodeError:
        return [(chr(byte), bytes((byte,))) for byte in value]


def _utf16(char: str) -> list[int]:
    raw = char.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2)]


def _aligned(value: bytes, before: int) -> str:
    """Return the base64 characters that `value` alone decides when `before` bytes precede it."""
    encoded = base64.b64encode(bytes(before) + value).rstrip(b"=")
    shared_start = (0, 2, 3)[before]
    shared_end = 1 if (before + len(value)) % 3 else 0
    return encoded[shared_start : len(encoded) - shared_end].decode()


def _spellings(char: str, raw: bytes, also: dict[str, bytes]) -> Spellings:
    """Return the ways to write a character that some encoder escapes, and `also` the one given."""
    misread = raw.decode("latin-1")  # bytes taken for characters on the way
    found = [raw, misread.encode(), _SHORT.get(char, raw), also.get(char, raw)]
    for digits in ("x", "X"):
        found.append("".join(f"%{byte:02{digits}}" for byte in raw).encode())
        for text in (char, misread):
            units = [f"\\u{unit:04{digits}}" for one in text for unit in _utf16(one)]
            found.append("".join(units).encode())
    return tuple(dict.fromkeys(found))


def _escaped(
    characters: Sequence[tuple[str, bytes]], also: dict[str, bytes] | None = None
) -> Iterator[Form]:
    """Yield the forms of a text of which only special characters are escaped, in any manner.

    One, unless nothing in it is plain: then one for each spelling of its first character.
    """
    pieces: list[Spellings] = []
    for plain, group in groupby(characters, lambda one: one[0] in _NEVER_ESCAPED):
        if plain:
            pieces.append((b"".join(raw for _, raw in group),))
        else:
            pieces += [_spellings(char, raw, also or {}) for char, raw in group]
    place = max(range(len(pieces)), key=lambda at: (len(pieces[at]) == 1, len(pieces[at][0])))
    for number in range(len(pieces[place])):
        yield _form(pieces, place, number)


def _form(pieces: list[Spellings], place: int, number: int = 0) -> Form:
    return _made(
        pieces[place][number],
        tuple(reversed(pieces[:place])),
        tuple(pieces[place + 1 :]),
        tuple(pieces),
    )


def _folded(units: list[bytes], escape: bytes, least: int) -> Form:
    """Return the form of a text that is escaped throughout, its hexadecimal in either case."""
    alike = [at for at, unit in enumerate(units) if unit.lstrip(b"%\\u").isdigit()]
    start = end = 0
    for _, group in groupby(enumerate(alike), lambda one: one[1] - one[0]):
        run = [at for _, at in group]
        if len(run) > end - start:
            start, end = run[0], run[-1] + 1
    whole = (b"".join(units),)
    if end - start < least:
        return _made(b"", (), (), (whole,), escape=escape, folded=True)
    sides = (b"".join(units[:start]), b"".join(units[end:]))
    before, after = (((side,),) if side else () for side in sides)
    key = b"".join(units[start:end])
    return _made(key, before, after, (whole,), escape=escape, folded=True)


def _made(
    key: bytes,
    before: tuple[Spellings, ...],
    after: tuple[Spellings, ...],
    pieces: tuple[Spellings, ...],
    *,
    escape: bytes = b"",
    folded: bool = False,
) -> Form:
    inner = frozenset().union(*(spelling for piece in pieces for spelling in piece))
    return Form(
        key=key,
        escape=escape,
        before=before,
        after=after,
        folded=folded,
        pieces=pieces,
        longest=sum(max(map(len, piece)) for piece in pieces),
        firsts=bytes(dict.fromkeys(spelling[0] for spelling in pieces[0])),
        inner=inner | frozenset(bytes(inner).upper()) if folded else inner,
    )
