"""What the SDK's own worker and our engine are both asked, and where their answers may differ.

A difference is data: why it is there, and what each of the two says (regular expressions). One that
is not there any more fails the test as one does that nobody wrote down.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any

PIXEL = base64.b64encode(
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
).decode()


@dataclass(frozen=True)
class Difference:
    """Why the two differ, and what each says in full."""

    why: str
    sdk: str
    ours: str


@dataclass(frozen=True)
class Case:
    """One call by its name."""

    name: str
    tool: str
    input: dict[str, Any]
    difference: Difference | None = None


def bash(name: str, command: str, difference: Difference | None = None, **more: Any) -> Case:
    return Case(name, "bash", {"command": command, **more}, difference)


def case(name: str, tool: str, difference: Difference | None = None, /, **given: Any) -> Case:
    return Case(name, tool, given, difference)


def says(told: str, *, error: bool = False) -> str:
    """Return the expression for one block of text, as the comparison writes it."""
    return ("error " if error else "") + r'\[\{"text": "' + told + r'", "type": "text"\}\]'


def failing(why: str, sdk: str, ours: str) -> Difference:
    """Both answer with an error, in other words."""
    return Difference(why, says(sdk, error=True), says(ours, error=True))


_STATUS = "the SDK hides the exit code, without which a model guesses"
_RENEWED = "a shell that is gone is replaced at once and said to be; the SDK's stays dead"
_GONE = r"(bash: bash session terminated; restart required|BrokenResourceError\(\))"
"""The SDK writes to the shell before it has seen its end, or after."""
_FRESH = r"\[the former shell was gone[^]]*\]\\n"

CASES = [
    bash("echo", "echo hello"),
    bash("silence", "true"),
    bash(
        "failure",
        "echo before; false",
        failing(_STATUS, "before", r"before\\nexit code 1"),
    ),
    bash(
        "status",
        "exit_with() { return 7; }; exit_with",
        failing(_STATUS, r"\(no output\)", "exit code 7"),
    ),
    bash("stderr", "echo out; echo err >&2"),
    bash("directory", "mkdir -p deep/er && cd deep/er && basename $PWD"),
    bash("directory kept", "basename $PWD; cd ../.."),
    bash("variable", "export COLOUR=blue; thing=7"),
    bash("variable kept", "echo $COLOUR $thing"),
    bash("background", "sleep 60 & echo started"),
    bash("unicode", "printf 'Zürich 北京 🦜\\n'"),
    bash("not utf-8", "printf 'a\\xff\\xfeb\\n'"),
    bash("colours", "printf '\\033[31mred\\033[0m\\n'"),
    bash("stdin", "cat; echo end"),
    bash("no key", "env | grep -c ^ANTHROPIC || true"),
    bash(
        "long",
        "seq 1 100000",
        Difference(
            "the whole output is kept in a file in the sandbox; the SDK throws the head away",
            says(r"\[output truncated\]\\n.*99999\\n100000"),
            says(r"1\\n2\\n.*\.tool-output/.*99999\\n100000.*"),
        ),
    ),
    case("no command", "bash"),
    bash(
        "timeout",
        "echo early; sleep 30",
        failing(
            "what the command wrote before it was stopped is worth telling",
            r"bash: bash command timed out after 0\.4s",
            r"bash: bash command timed out after 0\.4s\\nearly\\n\[the shell and [^]]*\]",
        ),
        timeout_ms=400,
    ),
    bash(
        "after the timeout",
        "echo again",
        Difference(_RENEWED, says(_GONE, error=True), says(_FRESH + "again")),
    ),
    case("restart", "bash", restart=True),
    bash("after the restart", "echo ${COLOUR:-gone}; ls"),
    bash(
        "exit",
        "echo last; exit 3",
        failing(_STATUS, "last", r"last\\nexit code 3\\n\[the shell ended[^]]*\]"),
    ),
    bash(
        "after exit",
        "echo back",
        Difference(_RENEWED, says(_GONE, error=True), says(_FRESH + "back")),
    ),
    case("restart again", "bash", restart=True),
    bash(
        "open quote",
        "echo 'never closed",
        failing(
            "a command that can never end is refused at once; the SDK waits for its time limit",
            r"bash: bash command timed out after 0\.7s",
            r"bash: the command ends inside a quote or block; nothing of it was run.*",
        ),
        timeout_ms=700,
    ),
    case("restart once more", "bash", restart=True),
    case("write", "write", file_path="notes/a.txt", content="one\ntwo\nthree\ntwo\n"),
    case("write unicode", "write", file_path="u.txt", content="ä🦜\n"),
    case("write again", "write", file_path="notes/a.txt", content="one\ntwo\nthree\ntwo\n"),
    case("write outside", "write", file_path="/etc/oracle", content="x"),
    case("write upwards", "write", file_path="../../oracle", content="x"),
    case("write on a directory", "write", file_path="notes", content="x"),
    case("read", "read", file_path="notes/a.txt"),
    case("read unicode", "read", file_path="u.txt"),
    case("read a range", "read", file_path="notes/a.txt", view_range=[2, 3]),
    case("read to the end", "read", file_path="notes/a.txt", view_range=[3, -1]),
    case("read past the end", "read", file_path="notes/a.txt", view_range=[90, 95]),
    case("read a bad range", "read", file_path="notes/a.txt", view_range=[1]),
    case(
        "read nothing",
        "read",
        file_path="missing.txt",
    ),
    case("read a directory", "read", file_path="notes"),
    case("read outside", "read", file_path="/etc/passwd"),
    bash("make files", f"echo {PIXEL} | base64 -d > p.png; printf 'x\\xff' > b.bin; mkfifo f"),
    case("read an image", "read", file_path="p.png"),
    case("read binary", "read", file_path="b.bin"),
    case("read a pipe", "read", file_path="f"),
    bash("make a document", "printf '%%PDF-1.4\\n' > d.pdf; head -c 300000 /dev/zero > big.txt"),
    case("read a document", "read", file_path="d.pdf"),
    case("read too much", "read", file_path="big.txt"),
    bash("make links", "ln -s /etc/passwd out; ln -s notes/a.txt in; rm big.txt"),
    case("read a link out", "read", file_path="out"),
    case("read a link in", "read", file_path="in"),
    case("edit", "edit", file_path="notes/a.txt", old_string="one", new_string="ONE"),
    case("edit many", "edit", file_path="notes/a.txt", old_string="two", new_string="2"),
    case(
        "edit all",
        "edit",
        file_path="notes/a.txt",
        old_string="two",
        new_string="2",
        replace_all=True,
    ),
    case("edit what is not", "edit", file_path="notes/a.txt", old_string="zzz", new_string="y"),
    case(
        "edit nothing",
        "edit",
        file_path="missing.txt",
        old_string="a",
        new_string="b",
    ),
    case(
        "edit empty",
        "edit",
        failing(
            "nothing is found nowhere rather than everywhere",
            r"edit: old_string appears \d+ times in notes/a\.txt \(must be unique\)",
            "edit: old_string must not be empty",
        ),
        file_path="notes/a.txt",
        old_string="",
        new_string="b",
    ),
    case("read the edit", "read", file_path="notes/a.txt"),
    case("glob", "glob", pattern="**/*.txt"),
    case("glob below", "glob", pattern="*.txt", path="notes"),
    case("glob none", "glob", pattern="*.nothing"),
    case("glob absolute", "glob", pattern="/etc/*"),
    case("glob upwards", "glob", pattern="../*"),
    case("glob outside", "glob", pattern="*", path="/etc"),
    case(
        "grep",
        "grep",
        Difference(
            "no empty line at the end of a list",
            says(r"/workspace/notes/a\.txt:3:three\\n"),
            says(r"/workspace/notes/a\.txt:3:three"),
        ),
        pattern="^th.ee",
        path="notes",
    ),
    case("grep none", "grep", pattern="nowhere-to-be-found", path="notes"),
    case(
        "grep a bad pattern",
        "grep",
        failing(
            "the program that searches is nothing the model can act on",
            r"grep: rg failed: regex parse error:.*unclosed group\\n",
            r"grep: regex parse error:.*unclosed group",
        ),
        pattern="(",
        path="notes",
    ),
    case("grep outside", "grep", pattern="root", path="/etc"),
    case(
        "grep a file",
        "grep",
        Difference(
            "every line names its file, whether one was searched or many",
            says(r"2:2\\n4:2\\n"),
            says(r"/workspace/notes/a\.txt:2:2\\n/workspace/notes/a\.txt:4:2"),
        ),
        pattern="2",
        path="notes/a.txt",
    ),
    case(
        "a wrong type",
        "read",
        failing(
            "the model is told which field is wrong",
            r"ValueError\('Invalid arguments for function read'\)",
            r"read: invalid input: Expected `str`, got `int` - at `\$\.file_path`",
        ),
        file_path=7,
    ),
    case("a custom tool", "shout", word="hey"),
    case("a custom tool's failure", "shout", word="fail"),
    case("a custom tool's image", "shout", word="picture"),
]


def shown(content: list[Any]) -> str:
    """Return the blocks of a result as one text."""
    return json.dumps([_plain(block) for block in content], ensure_ascii=False)


def _plain(block: Any) -> dict[str, Any]:
    return {key: value for key, value in block.to_dict().items() if value is not None}
