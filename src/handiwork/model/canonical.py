"""The one form of a host name, an authority and a path: what is decided is what is dialled and sent.

Everything here answers for hostile text: it either returns the canonical form, which it maps to
itself, or raises NotCanonical.
"""

import ipaddress
import re
from functools import lru_cache

import idna

MAX_HOST_CHARS = 253
MAX_TARGET_CHARS = 32 * 1024

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_ASCII_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_TARGET = re.compile(r"/[\x21-\x7e]*")
_ESCAPE = re.compile(r"%(.{0,2})", re.DOTALL)
_ODD = re.compile(r'["<>^`{|}]')
_SLASHES = re.compile(r"/{2,}")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class NotCanonical(ValueError):
    """The text has no canonical form; the message says why and never repeats more than 80 of it."""


def _refuse(what: str, text: str) -> NotCanonical:
    return NotCanonical(f"{what}: {text[:80]!r}")


def _canonical_ipv6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text if "%" not in text else ""))
    except ValueError:
        raise _refuse("not an IPv6 address", text) from None


def _to_ascii(text: str) -> str:
    try:
        return idna.encode(text, uts46=True, std3_rules=True).decode("ascii")
    except UnicodeError:  # idna.IDNAError is one
        raise _refuse("not an international domain name", text) from None


@lru_cache(maxsize=4096)
def canonical_host(raw: str) -> str:
    """Return the lower-case ASCII host without trailing dot; an IPv6 address without brackets.

    Names outside ASCII are mapped by UTS 46 and checked by IDNA 2008. A name whose last label
    is a number must be a dotted quad of four decimals, because resolvers read the octal, hex,
    short and single-number forms as addresses too.
    """
    if raw.startswith("[") and raw.endswith("]"):
        return _canonical_ipv6(raw[1:-1])
    if raw.count(":") > 1:
        return _canonical_ipv6(raw)
    if not raw or len(raw) > MAX_HOST_CHARS + 1:
        raise _refuse("host is empty or too long", raw)
    text = raw.lower() if raw.isascii() else _to_ascii(raw)
    text = text.removesuffix(".")
    if not _ASCII_HOST.fullmatch(text) or len(text) > MAX_HOST_CHARS:
        raise _refuse("not a host name", raw)
    if "xn--" in text and _to_ascii(text) != text:
        raise _refuse("not an international domain name", raw)
    if _NUMBER.fullmatch(text.rpartition(".")[2]):
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise _refuse("not an IPv4 address in dotted decimals", raw) from None
    return text


def is_address(host: str) -> bool:
    """Say whether a canonical host is an IP address and not a name."""
    return ":" in host or host.rpartition(".")[2].isdigit()


def split_authority(raw: str, default_port: int) -> tuple[str, int]:
    """Return the canonical host and the port of `host`, `host:port`, `[v6]` or `[v6]:port`."""
    if "@" in raw:
        raise _refuse("user information in an authority", "…@…")
    host, port = raw, ""
    if raw.startswith("["):
        inside, bracket, rest = raw.partition("]")
        host = inside + bracket
        if rest and not rest.startswith(":"):
            raise _refuse("text after the bracket of an authority", raw)
        port = rest
    elif ":" in raw:
        host, _, digits = raw.partition(":")
        port = ":" + digits
    if not port:
        return canonical_host(host), default_port
    if not _PORT.fullmatch(port[1:]) or int(port[1:]) > 65535:
        raise _refuse("not a port", raw)
    return canonical_host(host), int(port[1:])


def _normalised_escape(found: re.Match[str]) -> str:
    digits = found.group(1)
    if len(digits) != 2 or not digits.isalnum():
        raise _refuse("a broken percent-encoding in the path", found.group())
    try:
        code = int(digits, 16)
    except ValueError:
        raise _refuse("a broken percent-encoding in the path", found.group()) from None
    if code in (0x00, 0x5C):
        raise _refuse("an encoded NUL or backslash in the path", found.group())
    return chr(code) if chr(code) in _UNRESERVED else f"%{digits.upper()}"


def _without_dot_segments(path: str) -> str:
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment.startswith((".;", "..;", ".%3B", "..%3B")):
            # Some servers drop `;…` before they resolve dots.
            raise _refuse("a dot segment with a parameter", segment)
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def canonical_path(target: str) -> tuple[str, str]:
    """Return the normalised path and the query (without `?`, as it came) of an origin-form target.

    Unreserved characters are decoded, other escapes are in upper case, `//` and dot segments are
    resolved. An encoded slash stays `%2F`: no rule with paths can judge it, and `decide` refuses
    it there. An encoded NUL, any backslash and anything but printable ASCII are refused.
    """
    if len(target) > MAX_TARGET_CHARS or not _TARGET.fullmatch(target):
        raise _refuse("not a path of printable ASCII that starts with '/', or too long", target)
    path, _, query = target.partition("?")
    if "\\" in path or "#" in target:
        raise _refuse("a backslash or fragment in the target", target)
    if "%" in path:
        path = _ESCAPE.sub(_normalised_escape, path)
    path = _ODD.sub(lambda found: f"%{ord(found.group()):02X}", path)
    if "//" in path:
        path = _SLASHES.sub("/", path)
    if "/." in path:
        path = _without_dot_segments(path)
    return path, query


def host_covers(pattern: str, host: str) -> bool:
    """Say whether a pattern (exact, `*.example.com` without the apex, or `*`) covers a host."""
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1 and not is_address(host)
    return host == pattern


def check_pattern(pattern: str) -> str:
    """Return a host pattern unchanged, or raise NotCanonical saying how to write it."""
    if pattern == "*":
        return pattern
    name = pattern.removeprefix("*.")
    host = canonical_host(name)
    if host != name:
        raise NotCanonical(f"{pattern[:80]!r} must be written {pattern[: -len(name)] + host!r}")
    if host != pattern and is_address(host):
        raise _refuse("a wildcard over an address", pattern)
    return pattern
