"""From a request of ours to the frame that asks for it: users, environment, limits. Pure."""

import errno
import math
import re
from collections.abc import Mapping

from handiwork.model.errors import ConfigError, GuestError
from handiwork.model.sandbox import ExecRequest, FileInfo, FileKind, TerminalSize
from handiwork.sandboxes import frames

CREDENTIALS = "ANTHROPIC_"
"""No variable whose name begins so is seen by a command, whoever set it."""

CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
"""Where every sandbox finds the roots it trusts, its exit's own among them."""

_CA_VARIABLES = (
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE"),
    *("GIT_SSL_CAINFO", "PIP_CERT", "AWS_CA_BUNDLE", "CARGO_HTTP_CAINFO", "DENO_CERT"),
    *("NIX_SSL_CERT_FILE", "PERL_LWP_SSL_CA_FILE", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE"),
)
DEFAULT_ENV: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "USER": "root",
    "TERM": "dumb",
    **dict.fromkeys(_CA_VARIABLES, CA_FILE),
}
"""What every command has unless its sandbox or its request says otherwise."""

TERMINAL_KIND = "xterm-256color"

LAST_ID = 65_535
_USERS = {"root": (0, 0), "nobody": (65_534, 65_534)}
_NUMERIC = re.compile(r"([0-9]{1,5})(?::([0-9]{1,5}))?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KINDS = {1: FileKind.FILE, 2: FileKind.DIRECTORY, 3: FileKind.LINK}


def parse_user(user: str) -> tuple[int, int]:
    """Return (uid, gid) of `root`, `nobody` or `uid[:gid]`, each at most 65,535; else GuestError."""
    if user in _USERS:
        return _USERS[user]
    found = _NUMERIC.fullmatch(user)
    uid = int(found[1]) if found else -1
    gid = int(found[2] or uid) if found else -1
    if not (0 <= uid <= LAST_ID and 0 <= gid <= LAST_ID):
        raise GuestError(
            f"no user {user[:40]!r} in a sandbox: say 'root', 'nobody' or 'uid[:gid]'",
            errno=errno.EINVAL,
        )
    return uid, gid


def check_env(env: Mapping[str, str]) -> None:
    """Raise ConfigError for a name that is none, a value with NUL, or a credential's name."""
    for name, value in env.items():
        if not _NAME.fullmatch(name) or "\0" in value:
            raise ConfigError(f"environment variable {name[:80]!r} is not valid")
        if name.startswith(CREDENTIALS):
            raise ConfigError(f"{name[:80]} may not be set in a sandbox: no credential enters one")


def exec_frame(request: ExecRequest, env: Mapping[str, str], *, stdin: bool) -> frames.Exec:
    """Return the frame for a command; `env` is the sandbox's, the request's own goes over it."""
    if not request.argv:
        raise GuestError("a command needs at least its program's name", errno=errno.EINVAL)
    check_env(request.env)
    uid, gid = parse_user(request.user)
    flags = frames.EXEC_STDIN if stdin else 0
    if request.merge_stderr:
        flags |= frames.EXEC_MERGE_STDERR
    variables = {
        name: value
        for name, value in {**env, **request.env}.items()
        if not name.startswith(CREDENTIALS)
    }
    return frames.Exec(
        flags=flags,
        timeout_ms=timeout_ms(request.timeout_seconds),
        output_limit=request.output_limit_bytes,
        uid=uid,
        gid=gid,
        cwd=path_bytes(request.cwd),
        argv=tuple(guest_bytes(part) for part in request.argv),
        env=tuple(guest_bytes(f"{name}={value}") for name, value in variables.items()),
    )


def terminal_frame(
    request: ExecRequest, size: TerminalSize, env: Mapping[str, str]
) -> frames.Terminal:
    """Return the frame for a command on a terminal; TERM is told unless the request does."""
    shown = {**env, "TERM": TERMINAL_KIND}
    command = exec_frame(request, shown, stdin=True)
    values = {name: getattr(command, name) for name in command.__struct_fields__}
    return frames.Terminal(**values, columns=size.columns, rows=size.rows)


def timeout_ms(seconds: float | None) -> int:
    """Return whole milliseconds, at least 1; 0 for no timeout."""
    if seconds is None:
        return 0
    return min(max(1, math.ceil(seconds * 1000)), 0xFFFFFFFF)


def guest_bytes(text: str) -> bytes:
    """Return text as the guest's bytes; names that are no UTF-8 come back as they were told."""
    if "\0" in text:
        raise GuestError("a NUL character cannot stand in a path or argument", errno=errno.EINVAL)
    return text.encode("utf-8", "surrogateescape")


def guest_text(data: bytes) -> str:
    """Return the guest's bytes as text; bytes that are no UTF-8 become lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def path_bytes(path: str) -> bytes:
    """Return an absolute path's bytes; else GuestError."""
    if not path.startswith("/"):
        raise GuestError(f"path {path[:200]!r} is not absolute", errno=errno.EINVAL)
    if len(path) > 4095:
        raise GuestError("the path is longer than 4,095 characters", errno=errno.ENAMETOOLONG)
    return guest_bytes(path)


def file_info(name: str, found: frames.Info | frames.Entry) -> FileInfo:
    """Return what a frame tells of a path."""
    return FileInfo(
        name=name,
        kind=_KINDS.get(found.kind, FileKind.OTHER),
        mode=found.mode & 0o7777,
        size=found.size,
        mtime_ns=found.mtime_ns,
        uid=found.uid,
        gid=found.gid,
    )
