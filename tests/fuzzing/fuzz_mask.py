"""What an upstream sends back: of the same length whatever it is, masked alike in whatever pieces, with no secret in it."""

import atheris
from target import PLANTED, fuzz, must

with atheris.instrument_imports(include=["handiwork.egress.mask", "handiwork.egress.encodings"]):
    from handiwork.egress.mask import Mask

SECRETS = (b"sk-ab12ab12", b'p"a/s\\s %41', "\u00e4\u20ac-\U0001f600x".encode(), b"\xff\xfe/abab")
MASKS = (*(Mask([secret]) for secret in SECRETS), Mask(SECRETS))
LONGEST = 200


def shown(mask: Mask, pieces: list[bytes]) -> tuple[bytes, int]:
    one, given, taken, found = mask.fresh(), 0, 0, []
    for piece in pieces:
        found.append(one.feed(piece))
        taken, given = taken + len(piece), given + len(found[-1])
        must(0 <= taken - given < LONGEST, "more is held back than a secret has")
    found.append(one.finish())
    return b"".join(found), one.hits


def test(data: bytes) -> None:
    """The first byte says which secrets, the second into what pieces the rest is cut."""
    mask = MASKS[(data[0] if data else 0) % len(MASKS)]
    cut, body = 1 + (data[1] if len(data) > 1 else 0), data[2:]
    whole, hits = shown(mask, [body])
    must(
        (whole, hits) == shown(mask, [body[at : at + cut] for at in range(0, len(body), cut)]),
        "pieces give another text than the whole",
    )
    must(whole == mask.fresh().apply(body), "a text is masked otherwise than a stream")
    must(len(whole) == len(body), "another length")
    must((hits > 0) or whole == body, "masked where nothing was found")
    must(
        all(a in (b, 42) for a, b in zip(whole, body, strict=True)),
        "written over with another byte",
    )
    secrets = SECRETS if mask is MASKS[-1] else (SECRETS[MASKS.index(mask)],)
    for secret in secrets:
        for form in (secret, secret[::-1], secret.hex().encode(), secret.hex().upper().encode()):
            must(form not in whole, "a secret came through")
    must(PLANTED != "mask" or hits == 0, "planted")


if __name__ == "__main__":
    fuzz(test)
