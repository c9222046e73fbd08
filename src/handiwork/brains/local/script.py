"""The language of the `scripted` model: parsed into a flat program, run one response at a time. Pure.

A script is a JSON object `{"turns": [{"steps": [STEP, …]}, …]}`. The first user message runs the
first turn, the second the second; further messages run the last one again. The guide
`docs/guides/local-brain.md` describes every step. A program's position, loop counters and saved
texts live in a plain `scratch` mapping, so a turn continues after a restart.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import msgspec

from handiwork.brains.local.models import Text, ToolCall, ToolResult

MAX_STEPS = 1000
MAX_DEPTH = 20
MAX_CALLS = 16
MAX_PASSES = 1000
MAX_MOVES = 10_000
"""Instructions of one response."""
MAX_TEXT = 100_000
"""Characters of a text that is saved, searched or substituted."""

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,31}")
_PLACE = re.compile(r"\$(\$?)\{([a-z_][a-z0-9_]{0,31})\}")
_GIVEN = frozenset({"text", "result"})


class ScriptError(Exception):
    """The script is malformed; the message begins with the place of the step."""


class ScriptFailedError(Exception):
    """The script is well formed and cannot go on."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A piece of the JSON, strict."""


class Condition(_Part, frozen=True, kw_only=True):
    """Every test that is given must hold for the named text."""

    of: str = "result"
    contains: str | None = None
    equals: str | None = None
    matches: str | None = None
    is_error: bool | None = None
    not_: "Condition | None" = msgspec.field(default=None, name="not")
    all: "list[Condition] | None" = None
    any: "list[Condition] | None" = None


class CallSpec(_Part, frozen=True, kw_only=True):
    """A tool call; `save` names its result."""

    tool: str
    input: dict[str, Any] = {}
    save: str | None = None


class _Say(_Part, frozen=True, kw_only=True):
    say: str


class _Call(_Part, frozen=True, kw_only=True):
    call: CallSpec


class _Calls(_Part, frozen=True, kw_only=True):
    calls: list[CallSpec]


class _If(_Part, frozen=True, kw_only=True):
    if_: Condition = msgspec.field(name="if")
    then: list[Any]
    else_: list[Any] = msgspec.field(default_factory=list, name="else")


class _RepeatSpec(_Part, frozen=True, kw_only=True):
    limit: int
    steps: list[Any]
    while_: Condition | None = msgspec.field(default=None, name="while")
    until: Condition | None = None


class _Repeat(_Part, frozen=True, kw_only=True):
    repeat: _RepeatSpec


class CaptureSpec(_Part, frozen=True, kw_only=True):
    """Save the first group (or the whole match) of a pattern; `default` when it is not found."""

    name: str
    pattern: str
    of: str = "result"
    default: str | None = None


class _Capture(_Part, frozen=True, kw_only=True):
    capture: CaptureSpec


class _Set(_Part, frozen=True, kw_only=True):
    set: dict[str, str]


class _Fail(_Part, frozen=True, kw_only=True):
    fail: str


class _End(_Part, frozen=True, kw_only=True):
    end: Literal[True]


_STEPS: dict[str, type[_Part]] = {
    "say": _Say,
    "call": _Call,
    "calls": _Calls,
    "if": _If,
    "repeat": _Repeat,
    "capture": _Capture,
    "set": _Set,
    "fail": _Fail,
    "end": _End,
}


class Branch(msgspec.Struct, frozen=True):
    """Go to the target unless the condition holds."""

    condition: Condition
    target: int


class Jump(msgspec.Struct, frozen=True):
    """Go to the target."""

    target: int


class Enter(msgspec.Struct, frozen=True):
    """Begin a loop: no passes yet."""

    loop: str


class Pass(msgspec.Struct, frozen=True):
    """Begin a pass, or leave for the target when the passes are used up."""

    loop: str
    limit: int
    target: int


Instruction = _Say | _Calls | Branch | Jump | Enter | Pass | _Capture | _Set | _Fail | _End
Program = tuple[tuple[Instruction, ...], ...]


def parse(source: str) -> Program:
    """Return one flat program for each turn. ScriptError names the step that is wrong."""
    try:
        tree = msgspec.json.decode(source)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ScriptError(f"the script is not valid JSON: {error}") from None
    if not isinstance(tree, dict) or set(tree) != {"turns"} or not isinstance(tree["turns"], list):
        raise ScriptError('the script must be an object with one key: {"turns": [{"steps": […]}]}')
    if not tree["turns"]:
        raise ScriptError("turns: there must be at least one turn")
    parser = _Parser()
    program = tuple(
        parser.turn(turn, f"turns[{index}]") for index, turn in enumerate(tree["turns"])
    )
    parser.check_names()
    return program


class _Parser:
    """Collects what one script defines and uses while it is flattened."""

    def __init__(self) -> None:
        self._steps = 0
        self._loops = 0
        self._defined: set[str] = set(_GIVEN)
        self._used: list[tuple[str, str]] = []

    def turn(self, raw: Any, where: str) -> tuple[Instruction, ...]:
        if not isinstance(raw, dict) or set(raw) != {"steps"}:
            raise ScriptError(f'{where}: must be an object with one key: {{"steps": […]}}')
        code: list[Instruction] = []
        self._block(raw["steps"], f"{where}.steps", code, 0)
        return tuple(code)

    def check_names(self) -> None:
        for name, where in self._used:
            if name not in self._defined:
                raise ScriptError(f"{where}: nothing saves, captures or sets {name!r}")

    def _block(self, raw: Any, where: str, code: list[Instruction], depth: int) -> None:
        if not isinstance(raw, list):
            raise ScriptError(f"{where}: must be a list of steps")
        if depth > MAX_DEPTH:
            raise ScriptError(f"{where}: steps are nested deeper than {MAX_DEPTH}")
        for index, step in enumerate(raw):
            self._step(step, f"{where}[{index}]", code, depth)

    def _step(self, raw: Any, where: str, code: list[Instruction], depth: int) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise ScriptError(f"{where}: a script has at most {MAX_STEPS} steps")
        step = _typed(raw, where)
        if isinstance(step, _If):
            self._branch(step, where, code, depth)
        elif isinstance(step, _Repeat):
            self._loop(step.repeat, where, code, depth)
        else:
            simple = _Calls(calls=[step.call]) if isinstance(step, _Call) else step
            self._check(simple, where)
            code.append(cast("Instruction", simple))

    def _branch(self, step: _If, where: str, code: list[Instruction], depth: int) -> None:
        self._condition(step.if_, f"{where}.if")
        at = len(code)
        code.append(Jump(0))
        self._block(step.then, f"{where}.then", code, depth + 1)
        over = len(code)
        code.append(Jump(0))
        code[at] = Branch(step.if_, len(code))
        self._block(step.else_, f"{where}.else", code, depth + 1)
        code[over] = Jump(len(code))

    def _loop(self, spec: _RepeatSpec, where: str, code: list[Instruction], depth: int) -> None:
        if not 1 <= spec.limit <= MAX_PASSES:
            raise ScriptError(f"{where}.repeat.limit: must be between 1 and {MAX_PASSES}")
        self._loops += 1
        loop = str(self._loops)
        code.append(Enter(loop))
        top = len(code)
        code.append(Jump(0))
        if spec.while_ is not None:
            self._condition(spec.while_, f"{where}.repeat.while")
            code.append(Jump(0))
        self._block(spec.steps, f"{where}.repeat.steps", code, depth + 1)
        if spec.until is not None:
            self._condition(spec.until, f"{where}.repeat.until")
            code.append(Branch(spec.until, top))
        else:
            code.append(Jump(top))
        code[top] = Pass(loop, spec.limit, len(code))
        if spec.while_ is not None:
            code[top + 1] = Branch(spec.while_, len(code))

    def _check(self, step: Any, where: str) -> None:
        match step:
            case _Say(say=text) | _Fail(fail=text):
                self._template(text, where)
            case _Calls(calls=calls):
                self._calls(calls, where)
            case _Capture(capture=spec):
                self._define(spec.name, where)
                self._used.append((spec.of, where))
                _pattern(spec.pattern, where)
            case _Set(set=values):
                for name, text in values.items():
                    self._define(name, where)
                    self._template(text, where)

    def _calls(self, calls: Sequence[CallSpec], where: str) -> None:
        if not 1 <= len(calls) <= MAX_CALLS:
            raise ScriptError(f"{where}: a step makes 1 to {MAX_CALLS} calls")
        for call in calls:
            if call.save is not None:
                self._define(call.save, where)
            self._template(call.input, where)

    def _condition(self, condition: Condition, where: str) -> None:
        tests = msgspec.structs.astuple(condition)[1:]
        if all(test is None for test in tests):
            raise ScriptError(
                f"{where}: needs one of contains, equals, matches, is_error, not, all, any"
            )
        self._used.append((condition.of, where))
        if condition.matches is not None:
            _pattern(condition.matches, where)
        for text in (condition.contains, condition.equals):
            self._template(text, where)
        inner = [condition.not_, *(condition.all or ()), *(condition.any or ())]
        for each in inner:
            if each is not None:
                self._condition(each, where)

    def _define(self, name: str, where: str) -> None:
        if name in _GIVEN or not _NAME.fullmatch(name):
            raise ScriptError(f"{where}: {name!r} cannot be a name: use a-z, 0-9 and '_'")
        self._defined.add(name)

    def _template(self, value: Any, where: str) -> None:
        if isinstance(value, str):
            self._used += [(m[2], where) for m in _PLACE.finditer(value) if not m[1]]
        elif isinstance(value, dict):
            for item in value.values():
                self._template(item, where)
        elif isinstance(value, list):
            for item in value:
                self._template(item, where)


def _typed(raw: Any, where: str) -> _Part:
    verbs = [key for key in raw if key in _STEPS] if isinstance(raw, dict) else []
    if len(verbs) != 1:
        raise ScriptError(f"{where}: must be an object with one of {', '.join(_STEPS)}")
    try:
        return msgspec.convert(raw, _STEPS[verbs[0]])
    except msgspec.ValidationError as error:
        raise ScriptError(f"{where}: {error}") from None


def _pattern(pattern: str, where: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ScriptError(f"{where}: {pattern!r} is not a regular expression: {error}") from None


class Run:
    """One response being made: the program goes on until it calls tools or ends."""

    def __init__(self, program: Program, scratch: Mapping[str, Any]) -> None:
        self._program = program
        self._messages: int = scratch.get("messages", 0)
        self._at: int = scratch.get("at", 0)
        self._passes: dict[str, int] = dict(scratch.get("passes", {}))
        self._saved: dict[str, tuple[str, bool]] = dict(scratch.get("saved", {}))
        self._saves: list[str | None] = scratch.get("saves", [])
        self.blocks: list[Text | ToolCall] = []

    def scratch(self) -> dict[str, Any]:
        """Return what the next response needs."""
        return {
            "messages": self._messages,
            "at": self._at,
            "passes": self._passes,
            "saved": self._saved,
            "saves": self._saves,
        }

    def begin(self, message: str) -> None:
        """Start the turn of a new user message."""
        self._messages += 1
        self._at = 0
        self._passes = {}
        self._saves = []
        self._saved["text"] = (message[:MAX_TEXT], False)
        self._saved["result"] = ("", False)

    def take(self, results: Sequence[ToolResult]) -> None:
        """Note the results of the calls that the last response made."""
        for name, result in zip(self._saves, results, strict=False):
            if name is not None:
                self._saved[name] = (result.text[:MAX_TEXT], result.is_error)
        joined = "\n".join(result.text for result in results)
        self._saved["result"] = (joined[:MAX_TEXT], any(result.is_error for result in results))

    def go_on(self) -> None:
        """Run until tools are called or the turn ends. ScriptFailedError: it cannot."""
        code = self._program[min(self._messages, len(self._program)) - 1]
        for _ in range(MAX_MOVES):
            if self._at >= len(code):
                return
            step = code[self._at]
            self._at += 1
            if isinstance(step, _End):
                self._at = len(code)
            elif isinstance(step, _Calls):
                self._call(step.calls)
                return
            else:
                self._do(step)
        raise ScriptFailedError(f"the script took more than {MAX_MOVES} steps without a tool call")

    def _do(self, step: Instruction) -> None:
        match step:
            case _Say(say=text):
                self.blocks.append(Text(self._filled(text)))
            case Branch(condition=condition, target=target):
                self._at = self._at if self._holds(condition) else target
            case Jump(target=target):
                self._at = target
            case Enter(loop=loop):
                self._passes[loop] = 0
            case Pass(loop=loop, limit=limit, target=target):
                self._passes[loop] += 1
                self._at = self._at if self._passes[loop] <= limit else target
            case _Capture(capture=spec):
                self._capture(spec)
            case _Set(set=values):
                self._saved |= {name: (self._filled(text), False) for name, text in values.items()}
            case _Fail(fail=text):
                raise ScriptFailedError(self._filled(text))

    def _call(self, calls: Sequence[CallSpec]) -> None:
        self._saves = [call.save for call in calls]
        self.blocks += [ToolCall(call.tool, self._filled_in(call.input)) for call in calls]

    def _capture(self, spec: CaptureSpec) -> None:
        found = re.search(spec.pattern, self._value(spec.of)[0], re.MULTILINE)
        if found is not None:
            text = found[1] if found.re.groups else found[0]
            self._saved[spec.name] = (text or "", False)
        elif spec.default is not None:
            self._saved[spec.name] = (spec.default, False)
        else:
            raise ScriptFailedError(
                f"capture {spec.name!r}: {spec.pattern!r} is not in {spec.of!r}"
            )

    def _holds(self, condition: Condition) -> bool:
        text, is_error = self._value(condition.of)
        tests = [
            condition.contains is None or self._filled(condition.contains) in text,
            condition.equals is None or self._filled(condition.equals) == text,
            condition.matches is None or re.search(condition.matches, text, re.MULTILINE),
            condition.is_error is None or condition.is_error == is_error,
            condition.not_ is None or not self._holds(condition.not_),
            condition.all is None or all(self._holds(each) for each in condition.all),
            condition.any is None or any(self._holds(each) for each in condition.any),
        ]
        return all(tests)

    def _value(self, name: str) -> tuple[str, bool]:
        try:
            text, is_error = self._saved[name]
        except KeyError:
            raise ScriptFailedError(f"{name!r} is used before it has a value") from None
        return text, is_error

    def _filled(self, template: str) -> str:
        def value(match: re.Match[str]) -> str:
            return match[0][1:] if match[1] else self._value(match[2])[0]

        filled = _PLACE.sub(value, template)
        if len(filled) > MAX_TEXT + len(template):
            raise ScriptFailedError(f"a text grew beyond {MAX_TEXT} characters")
        return filled

    def _filled_in(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._filled(value)
        if isinstance(value, dict):
            return {key: self._filled_in(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled_in(item) for item in value]
        return value
