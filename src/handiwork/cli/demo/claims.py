"""The demo's claims: each is checked against what really happened, and named when it fails."""

import base64
from collections.abc import Sequence

import msgspec

from handiwork.cli.demo import story
from handiwork.model.audit import AuditRecord
from handiwork.model.errors import HandiworkError


class ClaimError(HandiworkError):
    """A claim of the demo does not hold."""

    def __init__(self, claim: str, why: str) -> None:
        super().__init__(f"the demo's claim {claim!r} does not hold: {why}")
        self.claim = claim


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One tool call of the agent and its result, in order."""

    tool: str
    argument: str
    output: str
    is_error: bool


def demand(claim: str, holds: bool, why: str) -> None:
    """Raise ClaimError unless it holds."""
    if not holds:
        raise ClaimError(claim, why)


def check_program(steps: Sequence[Step]) -> None:
    """The test failed, the agent read why, edited, and it passed."""
    runs = [s for s in steps if s.tool == "bash" and "test_median.py" in s.argument]
    demand("program", len(runs) >= 2, "the agent did not run its test twice")
    demand("program", "FAILED" in runs[0].output, "the first run of the test did not fail")
    demand("program", "OK" in runs[1].output, "the test did not pass after the edit")
    found = _one(steps, "grep", "program").output
    demand("program", found.count("def test_") == 2, "grep did not find both tests")
    text = _one(steps, "read", "program").output
    demand("program", "half - 1" in text, "the file does not hold the edit")


def check_injected(steps: Sequence[Step], keys_right: int) -> None:
    """The upstream saw the real key."""
    step = _curl(steps, story.API_HOST, "injected")
    demand("injected", "HTTP 200" in step.output, f"the API was not reached: {_short(step.output)}")
    demand("injected", keys_right > 0, "the upstream did not see the real key")


def check_masked(steps: Sequence[Step], key: str) -> None:
    """The upstream echoed the key; what came back holds neither it nor its base64."""
    output = _curl(steps, story.API_HOST, "masked").output
    demand("masked", '"you_sent": "Bearer' in output, "the upstream's echo is not in the answer")
    demand("masked", not holds_key(output.encode(), key), "the key came back in the answer")


def check_hidden(found: Sequence[tuple[str, bytes]], key: str) -> None:
    """Nothing that the sandbox holds (place, content) has the key in it."""
    for place, content in found:
        demand("hidden", len(content) > 0, f"{place} could not be searched")
        demand("hidden", not holds_key(content, key), f"the key is in the sandbox's {place}")


def check_denied(steps: Sequence[Step], seen_by_upstream: Sequence[str]) -> None:
    """The forbidden name answered 403 with the rule, and nothing arrived."""
    step = _curl(steps, story.EVIL_HOST, "denied")
    rule = f"{story.POLICY_NAME}/{story.DENY_RULE}"
    demand("denied", "HTTP 403" in step.output, f"it was not refused: {_short(step.output)}")
    demand("denied", rule in step.output, f"the rule {rule} is not named: {_short(step.output)}")
    arrived = any(story.EVIL_HOST in request for request in seen_by_upstream)
    demand("denied", not arrived, "the request arrived all the same")


def check_closed(steps: Sequence[Step]) -> None:
    """Raw TCP and DNS of a denied name went nowhere."""
    raw = next((s.output for s in steps if story.DENIED_ADDRESS in s.argument), "")
    refused = "RAW-TCP-REFUSED" in raw or "RAW-TCP-CLOSED" in raw
    demand("closed", refused, f"raw TCP was not refused: {_short(raw)}")
    dns = next((s.output for s in steps if story.DENIED_NAME in s.argument), "")
    demand("closed", "DNS-REFUSED" in dns, f"the DNS question was answered: {_short(dns)}")


def check_slept(state: str, processes: Sequence[int]) -> None:
    """No process of the sandbox is left."""
    demand("asleep", state == "sleeping", f"the sandbox is {state}")
    demand("asleep", not processes, f"processes are left: {list(processes)}")


def check_woken(steps: Sequence[Step], before: str, after: str) -> None:
    """The second message found the same files in the same sandbox."""
    demand("awake", before == after, "it is another sandbox")
    output = steps[-1].output if steps else ""
    demand("awake", story.MARKER in output, f"the marker file is lost: {_short(output)}")
    demand("awake", "OK" in output, f"the program is lost: {_short(output)}")


def check_recorded(records: Sequence[AuditRecord]) -> None:
    """Both decisions are on record, with their rules."""
    allowed = [r for r in records if r.allowed and r.host == story.API_HOST]
    demand("recorded", bool(allowed), "no record of the allowed request")
    demand(
        "recorded",
        allowed[0].injected == (story.SECRET_NAME,) and allowed[0].masked > 0,
        "the record does not say what was injected and masked",
    )
    denied = [r for r in records if not r.allowed and r.host == story.EVIL_HOST]
    demand("recorded", bool(denied), "no record of the refused request")
    demand("recorded", denied[0].rules[-1].endswith(story.DENY_RULE), "the rule is not on record")


def holds_key(content: bytes, key: str) -> bool:
    """Say whether the key is in there, raw or in base64 at any alignment."""
    if key.encode() in content:
        return True
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + key.encode())
        if encoded[4 if shift else 0 : -4] in content:
            return True
    return False


def _curl(steps: Sequence[Step], host: str, claim: str) -> Step:
    found = [s for s in steps if s.tool == "bash" and f"https://{host}/" in s.argument]
    demand(claim, bool(found), f"the agent did not ask {host}")
    return found[0]


def _one(steps: Sequence[Step], tool: str, claim: str) -> Step:
    found = [s for s in steps if s.tool == tool]
    demand(claim, bool(found) and not found[0].is_error, f"the tool {tool} did not answer")
    return found[0]


def _short(text: str) -> str:
    return " ".join(text.split())[:200]
