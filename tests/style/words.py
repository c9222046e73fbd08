"""What stands in names, comments and strings."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import PurePath

BANNED_NAMES = re.compile(r"(util|helper|manager|handler|constant)s?|common|misc|base")
_HISTORY = re.compile(
    r"\b(previously|formerly|legacy|(?:was|were) renamed|no longer(?! than)"
    r"|(?<!is )(?<!are )(?<!be )(?<!being )used to)\b",
    re.IGNORECASE,
)
_SILENCED = re.compile(
    r"#\s*(noqa|type:\s*ignore)\b(?P<code>:\s*[A-Z]+\d+[A-Z\d, ]*|\[[\w, -]+\])?"
)
_SECRET_NAME = re.compile(
    r"^_?(\w+_)?(secret|secret_value|password|plaintext|private_key|(api|admin|environment|model)_key)$"
)
_SECRET_TYPE = re.compile(r"(Secret|Secrets|PrivateKey)$")
_C_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)


def banned_name(path: str) -> list[str]:
    """Say it when a file is named after nothing that it does."""
    parts = PurePath(path).stem.removeprefix("test_").split("_")
    return [
        f"'{part}' says nothing; name the thing" for part in parts if BANNED_NAMES.fullmatch(part)
    ]


def comments(text: str, suffix: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each comment, docstrings included."""
    if suffix == ".py":
        yield from _python_comments(text)
    elif suffix in (".c", ".h"):
        for found in _C_COMMENT.finditer(text):
            yield text.count("\n", 0, found.start()) + 1, found.group()
    else:
        for number, line in enumerate(text.splitlines(), 1):
            found_here = re.search(r"(?:^|\s)#.*", line)
            if found_here:
                yield number, found_here.group()


def _python_comments(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        held = node.value if isinstance(node, ast.Expr) else None
        if isinstance(held, ast.Constant) and isinstance(held.value, str):
            yield node.lineno, held.value


def history(text: str, suffix: str) -> list[str]:
    """Name the comments that tell what the code was."""
    return [
        f"line {line}: '{found.group()}' tells history; say what is"
        for line, comment in comments(text, suffix)
        if (found := _HISTORY.search(comment))
    ]


def silenced(text: str, *, reasons: bool = True) -> list[str]:
    """Name each noqa and type-ignore without a code, or without a reason beside or above it."""
    lines = text.splitlines()
    faults = []
    for number, comment in _python_comments(text):
        found = _SILENCED.search(comment)
        if not found or not comment.startswith("#"):
            continue
        if not found.group("code"):
            faults.append(f"line {number}: {found.group()} names no code")
        rest = comment[: found.start()] + comment[found.end() :]
        above = lines[number - 2].strip() if number > 1 else ""
        if reasons and len(re.findall(r"\w+", rest)) < 2 and not above.startswith("#"):
            faults.append(f"line {number}: {comment} gives no reason")
    return faults


def formatted_secrets(text: str) -> list[str]:
    """Name the f-strings that hold a value whose name or annotated type says it is a secret."""
    tree = ast.parse(text)
    typed = {
        argument.arg
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for argument in [*node.args.args, *node.args.kwonlyargs]
        if argument.annotation and _SECRET_TYPE.search(ast.unparse(argument.annotation).strip("'"))
    }
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FormattedValue):
            shown = node.value
            named = getattr(shown, "id", None) or getattr(shown, "attr", "")
            if _SECRET_NAME.match(named) or named in typed:
                faults.append(f"line {node.lineno}: {{{named}}} may show a secret")
    return faults


def ownerless_tasks(text: str) -> list[str]:
    """Name the tasks that no TaskGroup owns: started on asyncio itself or on a loop."""
    return [
        f"line {node.lineno}: {ast.unparse(node.func)}: use a TaskGroup"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("create_task", "ensure_future")
        and re.search(r"\b(asyncio|loop|get_\w*loop)\b", ast.unparse(node.func.value))
    ]
