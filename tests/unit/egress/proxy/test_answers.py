"""Our own answers are whole and cannot be bent by what they quote."""

from hypothesis import given
from hypothesis import strategies as st

from handiwork.egress.proxy.answers import refusal


@given(st.text(), st.text(), st.booleans(), st.booleans())
def test_whatever_is_quoted_the_answer_stays_one(
    rule: str, reason: str, close: bool, head_only: bool
):
    raw = refusal(403, rule, reason, close=close, head_only=head_only)
    head, _, body = raw.partition(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert (b"connection" in fields) is close
    assert body == b"" if head_only else len(body) == int(fields[b"content-length"])
    assert body.count(b"\n") == (0 if head_only else 1)


def test_a_refusal_names_the_rule_in_one_line():
    raw = refusal(403, "session:p/no", "not you", close=False)
    assert raw.endswith(b"\r\n\r\nhandiwork: blocked by session:p/no: not you\n")
    assert b"x-handiwork-rule: session:p/no\r\n" in raw


def test_a_fault_of_the_upstream_names_the_error():
    raw = refusal(502, "upstream", "no route", close=False)
    assert b"x-handiwork-error: no route\r\n" in raw
    assert b"blocked" not in raw
