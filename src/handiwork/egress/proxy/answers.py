"""The answers that are ours: refusals and faults, in one plain line that names the rule."""

import re

BLOCKED = 403
_REASONS = {
    400: b"Bad Request",
    403: b"Forbidden",
    408: b"Request Timeout",
    421: b"Misdirected Request",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_MAX_CHARS = 1000


def plain(text: str) -> str:
    """Return the text on one line of printable ASCII, cut."""
    return _UNPRINTABLE.sub("?", text)[:_MAX_CHARS]


def refusal(status: int, rule: str, reason: str, *, close: bool, head_only: bool = False) -> bytes:
    """Return a whole answer; a fault of the upstream (502, 504) names the error, else the rule."""
    rule, reason = plain(rule), plain(reason)
    if status in (502, 504):
        line, named = f"handiwork: {reason}\n", f"x-handiwork-error: {reason}"
    else:
        line, named = f"handiwork: blocked by {rule}: {reason}\n", f"x-handiwork-rule: {rule}"
    head = (
        f"HTTP/1.1 {status} ".encode("ascii")
        + _REASONS[status]
        + f"\r\ncontent-type: text/plain\r\ncache-control: no-store\r\n{named}\r\n"
        f"content-length: {len(line)}\r\n".encode("ascii")
        + (b"connection: close\r\n\r\n" if close else b"\r\n")
    )
    return head if head_only else head + line.encode("ascii")
