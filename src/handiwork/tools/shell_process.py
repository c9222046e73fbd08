"""One persistent bash in a sandbox: what a command leaves (directory, variables, jobs) stays.

A command reaches the shell as the quoted argument of `eval`, so a quote that is not closed is an
error of that command and never swallows what follows. Standard input of every command is empty;
what it writes goes to one descriptor, and a line with a number drawn for this call ends it.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from handiwork.model.errors import GuestError, SandboxUnavailableError, ToolFailedError
from handiwork.model.sandbox import ExecRequest
from handiwork.sandboxes.protocol import Kills, Process, Sandbox, Stream

COMMAND_LIMIT_BYTES = 1 << 20

STATE_LIMIT_BYTES = 1 << 20
STATE_SECONDS = 10.0
_STATE_ENDS = b"# all of it\n"

# In a copy of the shell, whose options may be changed. The variables left out are bash's own: to set
# one that cannot be set would end the shell that takes the state on.
_STATE = r"""(
__options=$(builtin set +o)
builtin set +eux -f
builtin shopt -p
builtin declare -p IFS
IFS=$'\n'
for __name in $(builtin compgen -A variable); do
    case $__name in
    BASH* | EUID | PPID | SHELLOPTS | UID | GROUPS | DIRSTACK | FUNCNAME | PIPESTATUS | LINENO) ;;
    IFS | _ | __options | __name) ;;
    *) builtin declare -p "$__name" ;;
    esac
done
builtin declare -f
builtin alias -p
builtin printf 'umask %s\ncd -- %q\n%s\n# all of it\n' "$(builtin umask)" "$PWD" "$__options"
) 2>/dev/null"""

KILLS_SECONDS = 5.0
"""How long is waited for why a command failed; a sandbox that stands still does not answer."""

_KILL = 9
_NONCE_BYTES = 16
_CODE = re.compile(rb"(\d{1,3})\n")
_LONGEST_MARKER = 2 * _NONCE_BYTES + len("\n255\n")

# Descriptor 198 keeps the shell's own output, whatever a command does to 1 and 2; it is made anew
# for each, and the mark that ends a command goes without it. The backslashes
# and `command` keep aliases and functions of the same names away; `command` also keeps a syntax
# error from ending the shell in POSIX mode.
_KEEP_OUTPUT = b"{ \\command exec 198>&1; } 2>/dev/null; "
_RUN = b"\\command eval %s </dev/null >&198 2>&1; "
_MARK = (
    b"{ \\builtin printf '\\n%%s%%d\\n' %s \"$?\"; } 2>/dev/null"
    b" || \\builtin printf '\\n%%s1\\n' %s"
)
_REFUSAL = b"bash: the command ends inside a quote or block; nothing of it was run"
_UNLESS_UNFINISHED = (
    b'case "$(LC_ALL=C; \\command exec 2>&1 </dev/null; %s)" in'
    b" *': unexpected EOF while looking for matching'*|*': syntax error: unexpected end of file'*)"
    b" \\builtin printf '%%s\\n%%s2\\n' '" + _REFUSAL + b"' %s;; *) %s;; esac"
)
# Words, variables, simple quotes and operators between them: for these no copy of the shell is needed.
# Possessive, so that no text takes longer than its length.
_SURELY_WHOLE = re.compile(
    rb"(?:[\w./=,:@%+ ~*?\n;&|<>-]|\$\w++|'[^']*+'|\"[^\"\\`$]*+\")++(?<![|&])"
)
_MAY_OPEN = re.compile(
    rb"<<|\b(?:if|then|while|until|for|do|case|select|function|time|coproc|elif|else)\b"
)


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """What a command wrote and how it ended. `shell_ended`: it took the shell with it.

    `out_of_memory`: it failed, and the memory limit killed a process of the sandbox meanwhile.
    """

    output: str
    exit_code: int
    shell_ended: bool = False
    timed_out: bool = False
    out_of_memory: bool = False


class Sink(Protocol):
    """Where the output of a command goes."""

    async def take(self, chunk: bytes) -> None:
        """Take bytes."""
        ...

    async def text(self) -> str:
        """Return what is to be told of them, at their end."""
        ...

    async def abandon(self) -> None:
        """Let go of them; for a call that is cancelled."""
        ...


class _Held:
    """Holds a short output as it is."""

    def __init__(self) -> None:
        self.data = b""

    async def take(self, chunk: bytes) -> None:
        self.data = (self.data + chunk)[: STATE_LIMIT_BYTES + 1]

    async def text(self) -> str:
        return ""

    async def abandon(self) -> None:
        self.data = b""


class _Live(NamedTuple):
    process: Process
    chunks: AsyncIterator[tuple[Stream, bytes]]


class Shell:
    """The persistent shell of one thread of a session. Not for two commands at once."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._live: _Live | None = None
        self._held = b""
        self._lost = False
        self.runs = False
        """Whether a command is under way."""

    @property
    def waits(self) -> bool:
        """Whether its process lives and no command is under way.

        One that was killed between two commands is still held, but no call of the sandbox any more:
        counted as one, it would hide another.
        """
        live = self._live
        return live is not None and not self.runs and not live.process.has_ended

    async def run(
        self, command: str, output: Sink, *, timeout_seconds: float
    ) -> tuple[CommandEnd, bool]:
        """Run a command; the second value says that a new shell had to replace a lost one.

        ToolFailedError: the command cannot be given to a shell. Cancelling kills the shell and all
        that it started.
        """
        self.runs = True
        try:
            return await self._run(command, output, timeout_seconds)
        finally:
            self.runs = False

    async def _run(
        self, command: str, output: Sink, timeout_seconds: float
    ) -> tuple[CommandEnd, bool]:
        nonce = secrets.token_hex(_NONCE_BYTES).encode()
        script = _script(command, nonce)
        replaces, kills = self._lost, None
        try:
            async with asyncio.timeout(timeout_seconds):
                kills = await self.sandbox.memory_kills()
                live = await self._send(script)
                replaces = replaces or self._lost
                code = await self._exchange(live, nonce, output)
            killed = code != 0 and await _rose(kills)
            ended = self._live is None
            end = CommandEnd(await output.text(), code, shell_ended=ended, out_of_memory=killed)
        except TimeoutError:
            held = self._held
            await self.kill()
            await output.take(held)
            killed = await _rose(kills)
            end = CommandEnd(
                await output.text(), 137, shell_ended=True, timed_out=True, out_of_memory=killed
            )
        except BaseException:
            await self.kill()
            await output.abandon()
            raise
        self._lost = end.shell_ended
        return end, replaces

    async def state(self) -> bytes:
        """Return a script that makes another bash like this one: directory, variables, functions, options.

        Not copied: jobs, traps and open files. Empty where there is no shell yet.
        """
        if self._live is None:
            return b""
        held = _Held()
        await self.run(_STATE, held, timeout_seconds=STATE_SECONDS)
        if len(held.data) > STATE_LIMIT_BYTES:
            raise ToolFailedError(
                f"bash: the shell's variables and functions exceed {STATE_LIMIT_BYTES} bytes,"
                " too many to copy; unset some or restart it"
            )
        if not held.data.endswith(_STATE_ENDS):
            raise ToolFailedError("bash: the shell's state could not be copied; restart it")
        return held.data

    async def restart(self) -> None:
        """Kill the shell; the next command starts a new one."""
        await self.kill()
        self._lost = False

    async def kill(self) -> None:
        """Kill the shell and its process tree. No-op when there is none."""
        live, self._live = self._live, None
        self._held = b""
        self._lost = True
        if live is not None:
            await live.process.signal(_KILL)

    async def _start(self) -> _Live:
        request = ExecRequest(
            argv=("/bin/bash", "--noprofile", "--norc"),
            env={"TERM": "dumb", "PS1": "", "PS2": ""},
            timeout_seconds=None,
            output_limit_bytes=0,
            merge_stderr=True,
        )
        process = await self.sandbox.start(request, stdin=True)
        return _Live(process, process.output())

    async def _send(self, script: bytes) -> _Live:
        """Give the shell a script; a new one, where there is none or it ended between commands."""
        if self._live is not None:
            try:
                await self._live.process.write(script)
            except GuestError:
                await self.kill()
            else:
                return self._live
        live = self._live = await self._start()
        await live.process.write(script)
        return live

    async def _exchange(self, live: _Live, nonce: bytes, output: Sink) -> int:
        """Read until the line with the nonce, or until the shell has ended."""
        async for _, chunk in live.chunks:
            code = await self._take(chunk, b"\n" + nonce, output)
            if code is not None:
                return code
        held, self._held = self._held, b""
        await output.take(held)
        result = await live.process.wait()
        self._live = None
        return result.exit_code

    async def _take(self, chunk: bytes, marker: bytes, output: Sink) -> int | None:
        """Pass a chunk on; return the exit code once its line is whole.

        The last bytes are held back, for they may be the beginning of that line.
        """
        data = self._held + chunk
        found = _marked(data, marker)
        if found:
            self._held = data[found.end() :]
            await output.take(data[: found.start() - len(marker)])
            return int(found[1])
        self._held = data[-_LONGEST_MARKER:]
        await output.take(data[:-_LONGEST_MARKER])
        return None


async def _rose(kills: Kills | None) -> bool:
    """Say whether the memory limit killed a process; what the sandbox does not answer is not said."""
    if kills is None:
        return False
    try:
        async with asyncio.timeout(KILLS_SECONDS):
            return await kills.rose()
    except (TimeoutError, SandboxUnavailableError):
        return False


def _marked(data: bytes, marker: bytes) -> re.Match[bytes] | None:
    """Find the exit code behind the marker.

    An expression that holds the marker would be compiled anew for every command.
    """
    at = data.find(marker)
    while at >= 0:
        found = _CODE.match(data, at + len(marker))
        if found:
            return found
        at = data.find(marker, at + 1)
    return None


def _script(command: str, nonce: bytes) -> bytes:
    """Return what the shell is sent for one command.

    A command that may be unfinished is parsed whole first, in a copy of the shell and so with its
    own options: bash runs the lines before one that it cannot finish, and its parser is not well
    after such an end (5.2 then refuses a `case` in a command substitution).
    """
    code = command.encode("utf-8", "replace")
    if b"\0" in code:
        raise ToolFailedError("bash: the command contains a NUL byte")
    if len(code) > COMMAND_LIMIT_BYTES:
        raise ToolFailedError(
            f"bash: the command has {len(code)} bytes, the limit is {COMMAND_LIMIT_BYTES};"
            " write it to a file first"
        )
    run = _RUN % _quoted(code) + _MARK % (nonce, nonce)
    if not _SURELY_WHOLE.fullmatch(code.rstrip()) or _MAY_OPEN.search(code):
        run = _UNLESS_UNFINISHED % (_parsed(code), nonce, run)
    return _KEEP_OUTPUT + run + b"\n"


def _parsed(code: bytes) -> bytes:
    """Return what parses the code and runs nothing of it; a here-document must find its end too."""
    parsed = b"\\command eval " + _quoted(b"set -n\n" + code)
    if b"<<" not in code:
        return parsed
    swallowed = b"\\command eval " + _quoted(b"if false; then\n" + code + b"\n:\nfi")
    return b"(" + parsed + b"); " + swallowed


def _quoted(text: bytes) -> bytes:
    return b"'" + text.replace(b"'", b"'\\''") + b"'"
