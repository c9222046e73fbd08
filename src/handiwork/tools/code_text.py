"""Code as a model sends it: out of the block of Markdown that it may stand in. Pure."""

import re
from collections.abc import Sequence

# Quantifiers that give nothing back: code is anybody's, and no text of it takes longer than its length.
_FENCE = re.compile(r"(?P<indent>\s*+)(?P<mark>`{3,}+|~{3,}+)\s*+(?P<word>[^\s`]*+)(?:\s[^`]*+)?")
"""A line that opens a block; without a word it may close one as well."""
_ONE_LINE = re.compile(
    r"```(?:javascript|js|mjs|typescript|ts|python3?|py)?[ \t]++(?P<code>[^`\n]++)```",
    re.IGNORECASE,
)
"""A block on a line of its own, and no other text."""

_LABEL = re.compile(r"\s*+(?:javascript|js|typescript|python3?|py)[ \t]*+\r?\n", re.IGNORECASE)
"""The word of a block whose fence was lost: as code it would be a name that nothing has."""
_NAME = r"[A-Za-z_$][\w$]*"
_IMPORT = re.compile(
    rf"""import\b\s*+
    (?:(?:(?P<default>{_NAME})\s*+)?,?\s*+
       (?:\{{(?P<names>[^{{}}]*+)\}}\s*+|\*\s*+as\s++(?P<whole>{_NAME})\s*+)?from\s*+)?
    (?P<path>"[^"\\\n]++"|'[^'\\\n]++')[ \t]*+(?:;|(?=\r?\n|\Z))""",
    re.VERBOSE,
)
_BETWEEN = re.compile(r"(?:\s++|//[^\n]*+|/\*.*?\*/)++", re.DOTALL)
_EXPORT = re.compile(r"^[ \t]*+export\b", re.MULTILINE)
_IMPORTED = re.compile(rf"({_NAME})(?:\s++as\s++({_NAME}))?")


def imports_awaited(code: str) -> str:
    """Return JavaScript whose first imports are calls that are awaited; what exports stays as it is.

    A module has no value but its default export: code that imports and has none would give nothing, and
    may not return. No line moves to another place.
    """
    if _EXPORT.search(code):
        return code
    made: list[str] = []
    at = 0
    while True:
        between = _BETWEEN.match(code, at)
        start = between.end() if between else at
        found = _IMPORT.match(code, start)
        awaited = _awaited(found) if found else None
        if found is None or awaited is None:
            return "".join((*made, code[at:]))
        made += (code[at:start], awaited, "\n" * found[0].count("\n"))
        at = found.end()


def _awaited(found: re.Match[str]) -> str | None:
    """Return what an import is instead; None where it names what cannot be said so."""
    called = f"await import({found['path']});"
    names = [one.strip() for one in (found["names"] or "").split(",") if one.strip()]
    taken = [f"default: {found['default']}"] if found["default"] else []
    for one in names:
        name = _IMPORTED.fullmatch(one)
        if name is None:
            return None
        taken.append(f"{name[1]}: {name[2]}" if name[2] else name[1])
    listed = f"const {{ {', '.join(taken)} }} = " if taken else ""
    if found["whole"]:
        return f"const {found['whole']} = {called}" + (
            f" {listed}{found['whole']};" if listed else ""
        )
    return f"{listed}{called}"


def broken(code: str) -> str | None:
    """Return what is wrong with code that still begins with a fence, None for any other."""
    first, *others = code.strip().removeprefix("\ufeff").splitlines() or [""]
    if not re.match(r"\s*(```|~~~)", first):
        return None
    if any(_FENCE.fullmatch(line) for line in others):
        return "there are several blocks: send the code of one program, without fences"
    return "its block does not end, so some of it may be missing: send it again, without fences"


def unfenced(text: str) -> str:
    """Return what stands in the one fenced block of a text; any other text as it is.

    The words around a block are dropped where there is exactly one. A fence in a string or a comment of
    code opens none. A fence may close at the end of the last line of code. What never closes was cut off, and
    stays as it is: half of a program is not run.
    """
    alone = _ONE_LINE.fullmatch(text.removeprefix("\ufeff").strip())
    if alone is not None:
        return alone["code"].rstrip()
    labelled = _LABEL.match(text.removeprefix("\ufeff"))
    if labelled is not None:
        text = text.removeprefix("\ufeff")[labelled.end() :]
    lines = text.removeprefix("\ufeff").split("\n")
    fences = [at for at, line in enumerate(lines) if _FENCE.fullmatch(line)]
    if not fences or _is_open("\n".join(lines[: fences[0]])):
        return text
    block = _block(lines, fences)
    if block is None:
        return text
    indent = len(_fence(lines[fences[0]])["indent"])
    return "\n".join(_without(line, indent) for line in block)


def _fence(line: str) -> dict[str, str]:
    found = _FENCE.fullmatch(line)
    return found.groupdict() if found else {"indent": "", "mark": "", "word": ""}


def _closes(line: str, mark: str) -> bool:
    fence = _fence(line)
    return fence["mark"].startswith(mark) and not fence["word"]


def _block(lines: Sequence[str], fences: Sequence[int]) -> Sequence[str] | None:
    """Return the lines of the one block; None where there is none, or more than one."""
    first, *others = fences
    mark = _fence(lines[first])["mark"]
    if len(others) == 1 and _closes(lines[others[0]], mark):
        return lines[first + 1 : others[0]]
    last = max(at for at, line in enumerate(lines) if line.strip())
    if last == first or any(line.strip() for line in lines[:first]):
        return None
    if others:
        # The first of them opens a block in a text of the code, or else ends ours, and another follows.
        nested = bool(_fence(lines[others[0]])["word"]) and _closes(lines[last], mark)
        return lines[first + 1 : last] if nested else None
    end = lines[last].rstrip()
    return [*lines[first + 1 : last], end.removesuffix(mark)] if end.endswith(mark) else None


def _is_open(before: str) -> bool:
    """Say whether a text ends within a string or a comment of code."""
    quotes = ('"""', "'''", "`")
    return before.count("/*") > before.count("*/") or any(before.count(q) % 2 for q in quotes)


def _without(line: str, indent: int) -> str:
    return line[min(indent, len(line) - len(line.lstrip())) :]
