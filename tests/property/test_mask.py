"""Masking does not depend on how a body is split, keeps lengths, and lets no value through."""

import base64
import json
from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handiwork.egress.mask import Mask

# A small alphabet makes overlaps and near misses likely; `*` itself is the mask.
values = st.binary(min_size=8, max_size=20) | st.text(alphabet="ab", min_size=8, max_size=16).map(
    str.encode
)
secrets = st.lists(values.filter(lambda value: b"*" not in value), min_size=1, max_size=3)
# What keys and passwords are made of, and what makes escaping them hard.
texts = st.text(alphabet='aZ0/+="\\%&- .\u00e4\u20ac\U0001f600', min_size=6, max_size=16)


def mixed(text: str, turn: int) -> str:
    """Return hexadecimal with some of its digits in upper case."""
    return "".join(char.upper() if at % turn == 0 else char for at, char in enumerate(text))


def everywhere(text: str, before: str) -> str:
    return "".join(f"{before}{byte:02x}" for byte in text.encode())


def units(text: str) -> list[str]:
    raw = text.encode("utf-16-be")
    return [raw[at : at + 2].hex() for at in range(0, len(raw), 2)]


ENCODINGS = {
    "raw": lambda text: text,
    "reversed": lambda text: text.encode()[::-1],
    "base64": lambda text: base64.b64encode(text.encode()),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()),
    "base64 in JSON": lambda text: base64.b64encode(text.encode()).replace(b"/", b"\\/"),
    "base64 in a URL": lambda text: quote(base64.b64encode(text.encode()), safe=""),
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "hEx": lambda text: mixed(text.encode().hex(), 3),
    "percent": lambda text: quote(text, safe=""),
    "percent in lower case": lambda text: quote(text, safe="").replace("%C3%A4", "%c3%a4"),
    "percent but for slashes": quote,
    "form": quote_plus,
    "percent everywhere": lambda text: everywhere(text, "%"),
    "PERCENT everywhere": lambda text: everywhere(text, "%").upper(),
    "pErcent everywhere": lambda text: mixed(everywhere(text, "%"), 2),
    "JSON": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "JSON in ASCII": lambda text: json.dumps(text)[1:-1],
    "JSON with slashes": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "JSON for HTML": lambda text: json.dumps(text)[1:-1].replace("&", "\\u0026"),
    "JSON everywhere": lambda text: "".join(f"\\u{unit}" for unit in units(text)),
    "JSON EVERYWHERE": lambda text: "".join(f"\\u{mixed(unit, 1)}" for unit in units(text)),
}


def encoded(name: str, text: str) -> bytes:
    found = ENCODINGS[name](text)
    return found.encode() if isinstance(found, str) else found


def leaks(masked: bytes, written: bytes, name: str) -> bool:
    """Say whether more stays of what was written than an encoding shares with its neighbours."""
    return any(
        written[at : at + 5] in masked
        for at in range(0 if "base64" not in name else 4, len(written) - 8)
    )


@st.composite
def bodies(draw, held):
    pieces = []
    for _ in range(draw(st.integers(0, 5))):
        value = draw(st.sampled_from(held))
        around = draw(st.binary(max_size=4))
        pieces.append(
            draw(
                st.sampled_from(
                    [
                        value,
                        value[: len(value) // 2],
                        value[len(value) // 2 :],
                        base64.b64encode(around + value + around),
                        base64.urlsafe_b64encode(around + value),
                        around,
                        encoded(draw(st.sampled_from(list(ENCODINGS))), value.decode("latin-1")),
                    ]
                )
            )
        )
    return b"".join(pieces)


@st.composite
def flows(draw):
    held = draw(secrets)
    body = draw(bodies(held))
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=6)))
    edges = [0, *cuts, len(body)]
    return held, body, [body[a:b] for a, b in pairwise(edges)]


@given(flows())
def test_splitting_changes_nothing(flow):
    held, body, pieces = flow
    whole, split = Mask(held), Mask(held)
    shown = b"".join(split.feed(piece) for piece in pieces) + split.finish()
    assert shown == whole.apply(body)
    assert split.hits == whole.hits


@given(flows())
def test_lengths_stay_and_values_go(flow):
    held, body, _ = flow
    mask = Mask(held)
    shown = mask.apply(body)
    assert len(shown) == len(body)
    for value in held:
        assert value not in shown
    assert (mask.hits > 0) == (shown != body)


@given(secrets, st.binary(max_size=7), st.binary(max_size=7))
def test_base64_at_any_alignment_is_found(held, before, after):
    value = held[0]
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        mask = Mask(held)
        shown = mask.apply(encode(before + value + after))
        assert mask.hits > 0
        # All but the characters shared with the neighbours: two thirds of a byte at either end.
        assert shown.count(b"*") >= len(value) * 8 // 6 - 2


around = st.text(alphabet="xyz ,:\n", max_size=9).map(str.encode)


@pytest.mark.parametrize("name", ENCODINGS)
@settings(max_examples=60)
@given(text=texts, before=around, after=around, cuts=st.lists(st.integers(0, 300), max_size=5))
def test_every_encoding_is_masked_however_split(name, text, before, after, cuts):
    written = encoded(name, text)
    body = before + written + after
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    mask = Mask([text.encode()])
    shown = b"".join(mask.feed(body[a:b]) for a, b in pairwise(edges)) + mask.finish()
    assert mask.hits > 0
    assert len(shown) == len(body)
    assert not leaks(shown, written, name)
    assert shown[: len(before)] == before
    if "base64" not in name:
        assert shown == before + b"*" * len(written) + after


@pytest.mark.parametrize("name", ENCODINGS)
def test_sabotage_with_masking_off_every_encoding_leaks(name):
    written = encoded(name, "a/+Z0-secret")
    assert leaks(Mask([]).apply(b"x" + written), written, name)


@given(st.text(alphabet="aZ0/+=%-", min_size=6, max_size=16), st.data())
def test_pieces_of_every_kind_one_after_another_give_what_the_whole_gives(text, data):
    names = data.draw(st.lists(st.sampled_from(list(ENCODINGS)), max_size=6))
    parts = [encoded(name, text) for name in names]
    body = b"".join(part[: data.draw(st.integers(0, len(part)))] for part in parts)
    whole, split = Mask([text.encode()]), Mask([text.encode()])
    step = data.draw(st.integers(1, 9))
    shown = b"".join(split.feed(body[at : at + step]) for at in range(0, len(body), step))
    assert shown + split.finish() == whole.apply(body)
    assert split.hits == whole.hits


@given(flows())
def test_what_is_held_back_is_bounded(flow):
    held, _, pieces = flow
    mask = Mask(held)
    longest = max(len(value) for value in held) * 12 + 4
    taken = given_back = 0
    for piece in pieces:
        taken += len(piece)
        given_back += len(mask.feed(piece))
        assert 0 <= taken - given_back < longest


@given(st.binary(max_size=300))
def test_arbitrary_bytes_pass(body):
    mask = Mask([b"never-in-there-0123456789"])
    assert mask.feed(body) + mask.finish() == body
