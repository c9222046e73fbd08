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
from typing import NamedTuple

from handiwork.model.errors import ToolFailedError
from handiwork.model.sandbox import ExecRequest
from handiwork.sandboxes.protocol import Process, Sandbox, Stream

OUTPUT_LIMIT_BYTES = 102_400
"""Of a command's output the last this many bytes are kept."""

COMMAND_LIMIT_BYTES = 1 << 20

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_KILL = 9
_CODE_DIGITS = 8

# Descriptor 198 keeps the shell's own output, whatever a command does to 1 and 2.
_FIRST = b"exec 198>&1\n"
_MARKER = b" </dev/null >&198 2>&1; { printf '\\n%%s%%d\\n' %s \"$?\" >&198; } 2>/dev/null\n"
_UNLESS_UNFINISHED = (
    b'case "$(LC_ALL=C; eval %s 2>&1 </dev/null)" in'
    b" *'unexpected EOF'*|*'unexpected end of file'*)"
    b" echo 'bash: the command ends inside a quote or block; nothing of it was run';"
    b" [ x -eq 0 ] 2>/dev/null;; *) %s;; esac"
)


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """What a command wrote and how it ended. `shell_ended`: it took the shell with it."""

    output: str
    exit_code: int
    shell_ended: bool = False
    timed_out: bool = False


class _Live(NamedTuple):
    process: Process
    chunks: AsyncIterator[tuple[Stream, bytes]]


class Shell:
    """The persistent shell of one thread of a session. Not for two commands at once."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._live: _Live | None = None
        self._buffer = bytearray()
        self._cut = False
        self._lost = False

    async def run(self, command: str, *, timeout_seconds: float) -> tuple[CommandEnd, bool]:
        """Run a command; the second value says that a new shell had to replace a lost one.

        ToolFailedError: the command cannot be given to a shell. Cancelling kills the shell and all
        that it started.
        """
        nonce = secrets.token_hex(16).encode()
        script = _script(command, nonce)
        fresh = self._lost
        try:
            async with asyncio.timeout(timeout_seconds):
                live = self._live
                if live is None:
                    live = self._live = await self._start()
                    script = _FIRST + script
                end = await self._exchange(live, script, nonce)
        except TimeoutError:
            kept = self._collected()
            await self.kill()
            end = CommandEnd(output=kept, exit_code=137, shell_ended=True, timed_out=True)
        except BaseException:
            await self.kill()
            raise
        self._lost = end.shell_ended
        return end, fresh

    async def restart(self) -> None:
        """Kill the shell; the next command starts a new one."""
        await self.kill()
        self._lost = False

    async def kill(self) -> None:
        """Kill the shell and its process tree. No-op when there is none."""
        live, self._live = self._live, None
        self._buffer.clear()
        self._lost = True
        if live is not None:
            await live.process.signal(_KILL)

    async def _start(self) -> _Live:
        request = ExecRequest(
            argv=("/bin/bash", "--noprofile", "--norc"),
            env={"TERM": "dumb", "PS1": "", "PS2": ""},
            timeout_seconds=None,
            output_limit_bytes=1 << 62,
            merge_stderr=True,
        )
        process = await self.sandbox.start(request, stdin=True)
        return _Live(process, process.output())

    async def _exchange(self, live: _Live, script: bytes, nonce: bytes) -> CommandEnd:
        """Send one script, read until the line with the nonce, or until the shell has ended."""
        self._cut = False
        await live.process.write(script)
        async for _, chunk in live.chunks:
            end = self._take(chunk, nonce)
            if end is not None:
                return end
        result = await live.process.wait()
        self._live = None
        return CommandEnd(output=self._collected(), exit_code=result.exit_code, shell_ended=True)

    def _take(self, chunk: bytes, nonce: bytes) -> CommandEnd | None:
        """Add a chunk; return the end once its line is whole. The buffer stays bounded."""
        buffer = self._buffer
        searched = max(0, len(buffer) - len(nonce) - _CODE_DIGITS)
        buffer += chunk
        at = buffer.find(nonce, searched)
        line_end = buffer.find(b"\n", at) if at >= 0 else -1
        if line_end >= 0:
            code = int(buffer[at + len(nonce) : line_end])
            later = bytes(buffer[line_end + 1 :])
            del buffer[at:]
            output = self._collected()
            buffer += later
            return CommandEnd(output=output, exit_code=code)
        excess = len(buffer) - OUTPUT_LIMIT_BYTES - len(nonce) - _CODE_DIGITS
        if at < 0 and excess > 0:
            del buffer[:excess]
            self._cut = True
        return None

    def _collected(self) -> str:
        """Return the buffer as text and empty it."""
        kept = bytes(self._buffer).rstrip(b"\n")
        self._buffer.clear()
        cut = self._cut or len(kept) > OUTPUT_LIMIT_BYTES
        text = _ANSI.sub("", kept[-OUTPUT_LIMIT_BYTES:].decode("utf-8", "replace"))
        return f"[output truncated]\n{text}" if cut else text


def _script(command: str, nonce: bytes) -> bytes:
    """Return what the shell is sent for one command.

    A command of several lines is parsed whole first, in a copy of the shell and so with its own
    options, because bash runs the lines before one that it cannot finish; one line it reads whole.
    """
    code = command.encode("utf-8", "replace")
    if b"\0" in code:
        raise ToolFailedError("bash: the command contains a NUL byte")
    if len(code) > COMMAND_LIMIT_BYTES:
        raise ToolFailedError(
            f"bash: the command has {len(code)} bytes, the limit is {COMMAND_LIMIT_BYTES};"
            " write it to a file first"
        )
    run = b"eval " + _quoted(code)
    if b"\n" in code.strip():
        run = _UNLESS_UNFINISHED % (_quoted(b"if false; then\n" + code + b"\n:\nfi"), run)
    return run + _MARKER % nonce


def _quoted(text: bytes) -> bytes:
    return b"'" + text.replace(b"'", b"'\\''") + b"'"
