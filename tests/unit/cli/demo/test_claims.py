"""Each claim holds on what happens in a good run, and is named on each way to break it."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.cli.demo import claims, story
from handiwork.cli.demo.claims import ClaimError, Step
from handiwork.model.audit import AuditRecord

KEY = "sk-demo-0123456789abcdef"
RULE = f"agent:{story.POLICY_NAME}/{story.DENY_RULE}"


def step(tool: str, argument: str, output: str, *, is_error: bool = False) -> Step:
    return Step(tool=tool, argument=argument, output=output, is_error=is_error)


RUN_ONE = step("bash", "python3 test_median.py", "AssertionError: 3 != 2.5\nFAILED (failures=1)")
RUN_TWO = step("bash", "python3 test_median.py", "Ran 2 tests\nOK")
GREP = step("grep", "def test_", "4:def test_odd\n7:def test_even")
READ = step("read", "/workspace/median.py", "ordered[half - 1]")
API = step("bash", f"curl https://{story.API_HOST}/v1", '{"you_sent": "Bearer ********"}\nHTTP 200')
EVIL = step("bash", f"curl https://{story.EVIL_HOST}/", f"blocked by {RULE}\nHTTP 403")
RAW = step("bash", story.DENIED_ADDRESS, "RAW-TCP-REFUSED reset")
DNS = step("bash", story.DENIED_NAME, "DNS-REFUSED no such name")
WOKEN = step("bash", "cat marker", f"{story.MARKER}\nRan 2 tests\nOK")
STEPS = [RUN_ONE, RUN_TWO, GREP, READ, API, EVIL, RAW, DNS]


def changed(old: Step, **fields: object) -> list[Step]:
    return [msgspec.structs.replace(s, **fields) if s is old else s for s in STEPS]


def without(*gone: Step) -> list[Step]:
    return [s for s in STEPS if s not in gone]


def decided(host: str, **more: object) -> AuditRecord:
    given = {"id": "r", "at": datetime(2026, 1, 1, tzinfo=UTC), "binding": "b", "kind": "request"}
    return msgspec.convert({**given, "host": host, **more}, AuditRecord)


PERMITTED = decided(
    story.API_HOST,
    allowed=True,
    rules=["agent:demo/orders"],
    injected=[story.SECRET_NAME],
    masked=2,
)
REFUSED = decided(story.EVIL_HOST, allowed=False, rules=[RULE])


def test_a_good_run() -> None:
    claims.check_program(STEPS)
    claims.check_injected(STEPS, 1)
    claims.check_masked(STEPS, KEY)
    claims.check_hidden([("files", b"nothing"), ("answers", b"here")], KEY)
    claims.check_denied(STEPS, [f"GET /v1 {story.API_HOST}"])
    claims.check_closed(STEPS)
    claims.check_slept("sleeping", [])
    claims.check_woken([WOKEN], "sbx_1", "sbx_1")
    claims.check_recorded([REFUSED, PERMITTED])


def encoded(shift: int) -> str:
    return base64.b64encode(b"x" * shift + KEY.encode()).decode()


BROKEN: dict[str, list[Callable[[], None]]] = {
    "program": [
        lambda: claims.check_program([]),
        lambda: claims.check_program(without(RUN_TWO)),
        lambda: claims.check_program(changed(RUN_ONE, output="OK")),
        lambda: claims.check_program(changed(RUN_TWO, output="FAILED")),
        lambda: claims.check_program(without(GREP)),
        lambda: claims.check_program(changed(GREP, output="def test_odd")),
        lambda: claims.check_program(changed(READ, is_error=True)),
        lambda: claims.check_program(changed(READ, output="the old text")),
    ],
    "injected": [
        lambda: claims.check_injected(without(API), 1),
        lambda: claims.check_injected(changed(API, output="HTTP 503"), 1),
        lambda: claims.check_injected(STEPS, 0),
    ],
    "masked": [
        lambda: claims.check_masked(without(API), KEY),
        lambda: claims.check_masked(changed(API, output="HTTP 200"), KEY),
        lambda: claims.check_masked(changed(API, output=f'{{"you_sent": "Bearer {KEY}"'), KEY),
        *(
            lambda shift=shift: claims.check_masked(
                changed(API, output=f'"you_sent": "Bearer *" {encoded(shift)}'), KEY
            )
            for shift in range(4)
        ),
    ],
    "hidden": [
        lambda: claims.check_hidden([("files", b"")], KEY),
        lambda: claims.check_hidden([("files", b"a"), ("environment", KEY.encode())], KEY),
        lambda: claims.check_hidden([("files", encoded(1).encode())], KEY),
    ],
    "denied": [
        lambda: claims.check_denied(without(EVIL), []),
        lambda: claims.check_denied(changed(EVIL, output=f"{RULE} HTTP 200"), []),
        lambda: claims.check_denied(changed(EVIL, output="HTTP 403"), []),
        lambda: claims.check_denied(STEPS, [f"POST /upload {story.EVIL_HOST}"]),
    ],
    "closed": [
        lambda: claims.check_closed(without(RAW)),
        lambda: claims.check_closed(changed(RAW, output="RAW-TCP-ANSWERED")),
        lambda: claims.check_closed(without(DNS)),
        lambda: claims.check_closed(changed(DNS, output="DNS-ANSWERED 192.0.2.7")),
    ],
    "asleep": [
        lambda: claims.check_slept("running", []),
        lambda: claims.check_slept("sleeping", [4711]),
    ],
    "awake": [
        lambda: claims.check_woken([WOKEN], "sbx_1", "sbx_2"),
        lambda: claims.check_woken([], "sbx_1", "sbx_1"),
        lambda: claims.check_woken([step("bash", "cat", "OK")], "sbx_1", "sbx_1"),
        lambda: claims.check_woken([step("bash", "cat", story.MARKER)], "sbx_1", "sbx_1"),
    ],
    "recorded": [
        lambda: claims.check_recorded([REFUSED]),
        lambda: claims.check_recorded([PERMITTED]),
        lambda: claims.check_recorded([REFUSED, msgspec.structs.replace(PERMITTED, masked=0)]),
        lambda: claims.check_recorded([REFUSED, msgspec.structs.replace(PERMITTED, injected=())]),
        lambda: claims.check_recorded(
            [PERMITTED, msgspec.structs.replace(REFUSED, rules=("agent:demo/default",))]
        ),
    ],
}


@pytest.mark.parametrize(
    ("claim", "check"), [(claim, check) for claim, checks in BROKEN.items() for check in checks]
)
def test_a_broken_claim_is_named(claim: str, check: Callable[[], None]) -> None:
    with pytest.raises(ClaimError, match=f"claim '{claim}' does not hold") as caught:
        check()
    assert caught.value.claim == claim
    assert KEY not in str(caught.value)


@given(before=st.binary(max_size=50), after=st.binary(max_size=50), encode=st.booleans())
def test_a_key_is_found_wherever_it_stands(before: bytes, after: bytes, encode: bool) -> None:
    content = before + KEY.encode() + after
    assert claims.holds_key(base64.b64encode(content) if encode else content, KEY)


@given(st.binary(max_size=200))
def test_what_does_not_hold_the_key(content: bytes) -> None:
    assert not claims.holds_key(content, KEY)
