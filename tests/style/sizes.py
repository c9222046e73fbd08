"""How long a file and a function are."""

import ast
import re
from collections.abc import Iterator

FILE_LINES = 600
FUNCTION_LINES = 60

_C_NOISE = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
_SHELL_FUNCTION = re.compile(r"^(\w+)\(\) [{(]$(.*?)^[})]", re.DOTALL | re.MULTILINE)


def long_file(text: str) -> list[str]:
    """Say it when a file has too many lines."""
    count = len(text.splitlines())
    return [f"{count} lines, more than {FILE_LINES}"] if count > FILE_LINES else []


def long_functions(functions: Iterator[tuple[str, int]]) -> list[str]:
    """Name the functions with too many lines."""
    return [
        f"{name} has {lines} lines, more than {FUNCTION_LINES}"
        for name, lines in functions
        if lines > FUNCTION_LINES
    ]


def python_functions(text: str) -> Iterator[tuple[str, int]]:
    """Yield name and length of each function; decorators and docstring are not counted."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node, clean=False) is not None:
                lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            yield node.name, lines


def c_functions(text: str) -> Iterator[tuple[str, int]]:
    """Yield name and length of each function: what stands in braces after parentheses, outermost."""
    bare = _C_NOISE.sub(lambda found: "\n" * found.group().count("\n"), text)
    depth, head, start = 0, "", 0
    for number, line in enumerate(bare.splitlines(), 1):
        if line.lstrip().startswith("#"):
            continue
        for character in line:
            if character == "{":
                depth += 1
                if depth == 1:
                    start = number
            elif character == "}":
                depth -= 1
                if depth == 0:
                    called = re.search(r"(\w+)\s*\(", head)
                    if called and "=" not in head:
                        yield called.group(1), number - start + 1
                    head = ""
            elif depth == 0:
                head = "" if character == ";" else head + character
        head += "\n"


def shell_functions(text: str) -> Iterator[tuple[str, int]]:
    """Yield name and length of each function that starts and ends at the left edge."""
    for found in _SHELL_FUNCTION.finditer(text):
        yield found.group(1), found.group().count("\n") + 1
