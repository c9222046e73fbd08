"""What the API and its client say to each other beside the nouns: bodies, frames, errors.

Every body refuses unknown fields and has limits, so that a slip is told and not ignored.
"""

import re
import tarfile
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

from handiwork.model import errors
from handiwork.model.code import CodeError, CodeLimits, Language, LogLine
from handiwork.model.errors import GuestError, HandiworkError, PolicyDeniedError
from handiwork.model.image import ImageInfo, ImageProgress
from handiwork.model.language_model import Dollars, ModelSettings, Tokens
from handiwork.model.policy import Decision, Policy
from handiwork.model.process import ProcessRecord
from handiwork.model.redacted import shown_as_repr
from handiwork.model.sandbox import ExecResult, FileEvent, Limits, TerminalSize, TreeReport

MAX_EXEC_SECONDS = 3600
MAX_MESSAGE_BYTES = 1024 * 1024
"""Of one message of a WebSocket."""
MAX_OUTPUT_BYTES = 64 * 1024 * 1024
MAX_STDIN_BYTES = 8 * 1024 * 1024
MAX_CODE_BYTES = 4 * 1024 * 1024
MAX_FILE_BYTES = 256 * 1024 * 1024
"""Of a file that a client holds in memory."""
MAX_STREAM_BYTES = 64 << 30
"""Of a file that is sent as it is read."""
MAX_LIST = 10_000
MAX_TREE_BYTES = 64 << 30
MAX_TREE_ENTRIES = 1_000_000
MAX_TASK_CHARS = 200_000
MAX_FORKS = 32
MAX_RUN_SECONDS = 24 * 3600

T = TypeVar("T")
Path = Annotated[str, Meta(min_length=1, max_length=4096)]


class _Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request's body."""


class SandboxBody(_Body, frozen=True, kw_only=True):
    """A sandbox to make; empty: the operator's default. `metadata` is the caller's own.

    `size` is small, standard or large; `limits`, in its place, are exact.
    """

    tier: str = ""
    image: str = ""
    size: Annotated[str, Meta(max_length=40)] = ""
    limits: Limits | None = None
    policy: str = ""
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    metadata: Mapping[str, str] = msgspec.field(default_factory=dict)


class ExecBody(_Body, frozen=True, kw_only=True):
    """One command; the names are those of `ExecRequest`. `stdin` is base64 in JSON.

    `output_limit_bytes` absent: 8 MiB of each stream for one that is run to its end, all of what is
    read as it comes.
    """

    argv: Annotated[tuple[str, ...], Meta(min_length=1, max_length=4096)]
    cwd: Path = "/workspace"
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    stdin: Annotated[bytes, Meta(max_length=MAX_STDIN_BYTES)] | None = None
    user: Annotated[str, Meta(min_length=1, max_length=64)] = "root"
    timeout_seconds: Annotated[float, Meta(gt=0, le=MAX_EXEC_SECONDS)] = 120.0
    output_limit_bytes: Annotated[int, Meta(ge=1, le=MAX_OUTPUT_BYTES)] | None = None
    merge_stderr: bool = False


class TerminalBody(_Body, frozen=True, kw_only=True):
    """The first message of a terminal: what to run, and how large it is."""

    argv: Annotated[tuple[str, ...], Meta(min_length=1, max_length=4096)] = ("/bin/sh", "-l")
    cwd: Path = "/workspace"
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    user: Annotated[str, Meta(min_length=1, max_length=64)] = "root"
    size: TerminalSize = TerminalSize()


class TerminalOrder(_Body, frozen=True, kw_only=True, omit_defaults=True):
    """A later message that is no bytes: another size, a signal for the whole tree."""

    resize: TerminalSize | None = None
    signal: Annotated[int, Meta(ge=1, le=64)] | None = None


class ProcessBody(_Body, frozen=True, kw_only=True):
    """A process that outlives this call; it reads nothing, and its time has no limit."""

    argv: Annotated[tuple[str, ...], Meta(min_length=1, max_length=4096)]
    cwd: Path = "/workspace"
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    user: Annotated[str, Meta(min_length=1, max_length=64)] = "root"


class SignalBody(_Body, frozen=True, kw_only=True):
    """A signal for a process and all it started."""

    signal: Annotated[int, Meta(ge=1, le=64)]


class LogFrame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a log: output (base64) and its position, or last how the process stands."""

    at: int = 0
    stream: Literal["stdout", "stderr"] | None = None
    data: bytes = b""
    process: ProcessRecord | None = None
    error: "ErrorBody | None" = None


class WatchFrame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a watch: that it stands, a change, that what was watched is gone, or why it ended."""

    directories: int | None = None
    event: FileEvent | None = None
    gone: bool = False
    error: "ErrorBody | None" = None


class PortOrder(_Body, frozen=True, kw_only=True, omit_defaults=True):
    """What the caller of a port says beside bytes: it sends no more."""

    finish: bool = False


class PortFrame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is told of a connection beside its bytes: it stands, their side has ended, it broke."""

    connected: bool = False
    finished: bool = False
    error: "ErrorBody | None" = None


class OutputFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that an agent left for its user; `path` is relative to the outputs directory."""

    path: str
    size: int
    mtime_ns: int


class DirectoryBody(_Body, frozen=True, kw_only=True):
    """A directory to make."""

    path: Path
    mode: Annotated[int, Meta(ge=0, le=0o7777)] = 0o755
    parents: bool = True


class MoveBody(_Body, frozen=True, kw_only=True):
    """A rename within one sandbox."""

    source: Path
    target: Path


class AgentBody(_Body, frozen=True, kw_only=True):
    """What the operator decides for an agent; empty: the environment's.

    `environment` may be left out where only one is served.
    `variables`: names of environment variables, each with the secret that a placeholder stands for.
    """

    environment: str = ""
    tier: str = ""
    policy: str = ""
    image: Annotated[str, Meta(max_length=128)] = ""
    size: Annotated[str, Meta(max_length=40)] = ""
    limits: Limits | None = None
    variables: Annotated[Mapping[str, str], Meta(max_length=64)] = msgspec.field(
        default_factory=dict
    )


class SecretBody(_Body, frozen=True, kw_only=True):
    """A secret's value, and the hosts (exact or `*.`) it may be sent to."""

    value: str
    hosts: tuple[str, ...]

    def __repr__(self) -> str:
        return f"SecretBody(hosts={self.hosts})"

    __rich_repr__ = shown_as_repr


class RunBody(_Body, frozen=True, kw_only=True):
    """A task for an agent of the local brain, or for one made of a model.

    `system` is what an agent made for the model is told. `tier` and `policy` hold for this session;
    empty: the agent's or the environment's. `wait_seconds`: how long the answer may wait for the
    end of the run.
    """

    task: Annotated[str, Meta(min_length=1, max_length=MAX_TASK_CHARS)]
    agent: Annotated[str, Meta(max_length=128)] = ""
    model: Annotated[str, Meta(max_length=128)] = ""
    system: Annotated[str, Meta(max_length=100_000)] = ""
    environment: Annotated[str, Meta(max_length=128)] = ""
    tier: str = ""
    policy: str = ""
    timeout_seconds: Annotated[float, Meta(gt=0, le=MAX_RUN_SECONDS)] = 600.0
    wait_seconds: Annotated[float, Meta(ge=0, le=MAX_RUN_SECONDS)] = 600.0


class ModelBody(_Body, frozen=True, kw_only=True):
    """A model of the local brain; without `key` the one before stays, an empty one is none."""

    kind: Literal["anthropic", "openai"]
    base_url: str
    key: str | None = None
    model: str = ""
    context_tokens: Tokens = 200_000
    max_output_tokens: Tokens = 8_192
    input_price: Dollars | None = None
    output_price: Dollars | None = None
    cache_read_price: Dollars | None = None
    cache_write_price: Dollars | None = None

    def __repr__(self) -> str:
        return f"ModelBody({self.kind} at {self.base_url!r})"

    __rich_repr__ = shown_as_repr

    def settings(self, name: str) -> ModelSettings:
        """Return the model without its key."""
        fields = msgspec.structs.asdict(self)
        del fields["key"]
        return ModelSettings(name=name, **fields)


class RollbackBody(_Body, frozen=True, kw_only=True):
    """How to go back: `keep_present` takes what is there before, so that it can be undone."""

    keep_present: bool = True


class ForkBody(_Body, frozen=True, kw_only=True):
    """Sandboxes to make of one: of a snapshot by its number, else as it is now.

    `policy` empty: that of the sandbox, where it is no session's. `wake` False: they sleep.
    """

    count: Annotated[int, Meta(ge=1, le=MAX_FORKS)] = 1
    number: Annotated[int, Meta(ge=1)] | None = None
    policy: Annotated[str, Meta(max_length=128)] = ""
    wake: bool = True


class PullBody(_Body, frozen=True, kw_only=True):
    """An image of a registry: `HOST/PATH:TAG` or `HOST/PATH@sha256:DIGEST`."""

    reference: Annotated[str, Meta(min_length=1, max_length=512)]


class RegistryBody(_Body, frozen=True, kw_only=True):
    """What a registry asks for before it gives an image away."""

    user: Annotated[str, Meta(min_length=1, max_length=256)]
    password: Annotated[str, Meta(min_length=1, max_length=8192)]

    def __repr__(self) -> str:
        return f"RegistryBody({self.user!r})"

    __rich_repr__ = shown_as_repr


class PolicyTestBody(_Body, frozen=True, kw_only=True):
    """A request to decide on without sending it."""

    url: Annotated[str, Meta(max_length=32 * 1024)]
    method: Annotated[str, Meta(pattern="^[A-Z]{1,32}$")] = "GET"


class PolicyTest(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy alone says to a request; `steps` tells of each rule that was looked at."""

    decision: Decision
    steps: tuple[str, ...]


class PolicyVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A policy as it is kept."""

    policy: Policy
    version: int
    updated_at: datetime


class Listing(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Every list of the API."""

    data: tuple[T, ...]


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error: `type` names its class, the rest is for people and for that class."""

    type: str
    message: str
    errno: int | None = None
    rule_id: str | None = None


class ErrorEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every response that is an error."""

    error: ErrorBody


class ExecFrame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a streamed command: output (base64), or how it ended, or why it cannot go on."""

    stream: Literal["stdout", "stderr"] | None = None
    data: bytes = b""
    result: ExecResult | None = None
    error: ErrorBody | None = None


class CodeBody(_Body, frozen=True, kw_only=True):
    """Code to run; the names are those of `CodeRequest`."""

    code: Annotated[str, Meta(max_length=MAX_CODE_BYTES)]
    language: Language = "javascript"
    name: Path = "/workspace/code"
    fresh: bool = False
    restart: bool = False
    scope: Annotated[str, Meta(max_length=128)] = ""
    limits: CodeLimits = msgspec.field(default_factory=CodeLimits)


class CodeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended: its value, null where there is none, or its error; and what it logged."""

    value: Any = None
    error: CodeError | None = None
    logs: tuple[LogLine, ...] = ()
    logs_cut: bool = False
    wall_seconds: float = 0.0


class CodeFrame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a streamed run: what it logged, or how it ended, or why it cannot go on."""

    log: LogLine | None = None
    result: CodeAnswer | None = None
    error: ErrorBody | None = None


def _not_whole() -> bytes:
    member = tarfile.TarInfo("not-whole")
    member.size = 512
    return member.tobuf(tarfile.USTAR_FORMAT)


NOT_WHOLE = _not_whole()
"""The header of a file whose content is missing: after a tar that lost its rest between two members it
has every reader refuse the end, which some take for the archive's."""


class TreeFrame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of an archive on its way out: bytes of it (base64), or its end, or why it is not whole.

    `inside`: the bytes end within a member's content, where every reader of a tar misses the rest.
    """

    data: bytes = b""
    inside: bool = False
    report: TreeReport | None = None
    error: ErrorBody | None = None


class ImageFrame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a build: how far it is, or the image, or why there is none."""

    progress: ImageProgress | None = None
    image: ImageInfo | None = None
    error: ErrorBody | None = None


def error_type(kind: type[HandiworkError]) -> str:
    """Return the name that errors of this class bear: NotFoundError is `not_found`."""
    words = re.findall("[A-Z][a-z]*", kind.__name__.removesuffix("Error"))
    return "_".join(words).lower()


def tree_class(error: HandiworkError) -> type[HandiworkError]:
    """Return the class of the tree that an error is of; those elsewhere are subclasses."""
    found = (kind for kind in type(error).__mro__ if kind in _ERRORS.values())
    return next(found, HandiworkError)


def error_body(error: HandiworkError) -> ErrorBody:
    """Return what is told of an error."""
    return ErrorBody(
        type=error_type(tree_class(error)),
        message=str(error),
        errno=error.errno if isinstance(error, GuestError) else None,
        rule_id=error.rule_id if isinstance(error, PolicyDeniedError) else None,
    )


_ERRORS = {
    error_type(kind): kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, HandiworkError)
}
"""The tree by the names that bodies give its classes; subclasses elsewhere are not of it."""


def error_of(body: ErrorBody) -> HandiworkError:
    """Return the error that a body tells of; an unknown type is the root of the tree."""
    kind = _ERRORS.get(body.type, HandiworkError)
    extra: dict[str, Any] = {}
    if kind is GuestError:
        extra["errno"] = body.errno or 0
    if kind is PolicyDeniedError:
        extra["rule_id"] = body.rule_id or "default"
    return kind(body.message, **extra)
