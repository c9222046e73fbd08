"""`handiwork sandbox code`: code runs in a sandbox, its log becomes our standard error, its value our output."""

import posixpath
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import EXIT_FAILED, say, show_one, warn
from handiwork.client.handiwork import Handiwork
from handiwork.model.code import CodeLimits, CodeResult, Language, LogLine
from handiwork.model.errors import ConfigError
from handiwork.model.wire import MAX_CODE_BYTES

LANGUAGE_OF: dict[str, Language] = {
    ".js": "javascript",
    ".mjs": "javascript",
    ".py": "python",
    ".sh": "bash",
}
"""By the end of a file's name; other code is JavaScript."""


def code(  # noqa: PLR0913  options, each with a default
    context: typer.Context,
    sandbox_id: str,
    file: Annotated[
        str, typer.Argument(help="A file of this machine; - or nothing: standard input.")
    ] = "-",
    *,
    expression: Annotated[
        str | None, typer.Option("--execute", "-e", help="The code itself, in place of a file.")
    ] = None,
    language: Annotated[
        Literal["javascript", "python", "bash"] | None,
        typer.Option("--language", "-l", help="Else by the file's name."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="With no globals of former runs, and leaving none.")
    ] = False,
    cpu_ms: Annotated[int, typer.Option()] = CodeLimits().cpu_ms,
    timeout_seconds: Annotated[float, typer.Option()] = CodeLimits().wall_seconds,
    as_json: Annotated[bool, typer.Option("--json", help="All of its result.")] = False,
) -> None:
    """Run JavaScript, Python or bash in a sandbox of the isolate tier; exit code 1 when it failed."""
    text = expression if expression is not None else _text(file)
    chosen = language or LANGUAGE_OF.get(Path(file).suffix.lower(), "javascript")
    limits = CodeLimits(cpu_ms=cpu_ms, wall_seconds=timeout_seconds)
    name = posixpath.join("/workspace", "code" if file == "-" else Path(file).name)

    async def verb(client: Handiwork) -> CodeResult:
        box = await client.sandboxes.get(sandbox_id)
        return await box.run_code(text, chosen, on_log=_tell, fresh=fresh, name=name, limits=limits)

    invocation: Invocation = context.obj
    done = invocation.call(verb)
    if as_json:
        show_one(done, as_json=True)
    elif done.error is None:
        _show(done, chosen)
    if done.logs_cut:
        warn("it logged more than a run may; the rest was dropped")
    if done.error is not None:
        warn(f"{done.error.name}: {done.error.message}")
        raise typer.Exit(EXIT_FAILED)


def _show(done: CodeResult, language: Language) -> None:
    value = done.value
    if language == "bash":
        sys.stdout.write(value["stdout"])
        sys.stderr.write(value["stderr"] and f"{value['stderr']}\n")
        sys.stdout.flush()
        if value["exit_code"]:
            raise typer.Exit(value["exit_code"])
    else:
        say(value if isinstance(value, str) else done.value_json.decode())


def _tell(line: LogLine) -> None:
    sys.stderr.write(f"{line.text}\n")
    sys.stderr.flush()


def _text(file: str) -> str:
    try:
        data = sys.stdin.buffer.read(MAX_CODE_BYTES + 1) if file == "-" else Path(file).read_bytes()
        text = data.decode()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: it is no UTF-8 text") from None
    if len(data) > MAX_CODE_BYTES:
        raise ConfigError(f"{file}: code of more than {MAX_CODE_BYTES >> 20} MiB")
    return text
