"""Code that is run in an isolate: what is asked, how much it may use, what it gave."""

import enum
from typing import Any, Literal

import msgspec

Language = Literal["javascript", "python", "bash"]
LANGUAGES: tuple[Language, ...] = ("javascript", "python", "bash")
IN_ORDER = "$arguments"
"""What a call of code that named nothing is sent as: `{"$arguments": [...]}`; named ones may stand beside it."""


class CodeLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one run may use; its memory is the cell's, and is set where that is made.

    `calls` and `call_mib` are of tools, files and fetches together; `frames_per_second` bounds how
    often the cell may speak to us at all.
    """

    cpu_ms: int = 5_000
    wall_seconds: float = 120.0
    output_kib: int = 1024
    log_kib: int = 256
    calls: int = 10_000
    call_mib: int = 64
    parallel_calls: int = 256
    frames_per_second: int = 20_000


class CodeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of code. `name` is what its errors call it, and what its relative imports start from.

    `fresh`: in a cell of its own, which ends with it; else globals stay from one run to the next, until
    one is to `restart`: that ends the cell that is there first. Each `scope` has globals of its own. Bash
    gives `{"exit_code", "stdout", "stderr"}`.
    """

    code: str
    language: Language = "javascript"
    name: str = "/workspace/code"
    fresh: bool = False
    restart: bool = False
    scope: str = ""
    limits: CodeLimits = msgspec.field(default_factory=CodeLimits)


class LimitKind(enum.Enum):
    """What a run was ended for."""

    CPU = "cpu"
    WALL = "wall"
    MEMORY = "memory"
    OUTPUT = "output"
    CALLS = "calls"
    FRAMES = "frames"


class CodeError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run gave no value; `limit` where it hit one of ours, and then its cell is gone."""

    name: str
    message: str
    stack: str = ""
    limit: LimitKind | None = None


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that code wrote; `level` is that of its console."""

    level: str
    text: str


class CodeResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended: a value, as JSON, or an error. `logs_cut`: some lines were dropped."""

    value_json: bytes = b"null"
    error: CodeError | None = None
    logs: tuple[LogLine, ...] = ()
    logs_cut: bool = False
    wall_seconds: float = 0.0

    @property
    def value(self) -> Any:
        """What it gave. Of a guest's making: its depth and its size are bounded, its shape is not."""
        return msgspec.json.decode(self.value_json)
