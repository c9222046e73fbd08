"""Glob patterns as regular expressions. Pure."""

import re
from collections.abc import Sequence

_DIRECTORIES = "(?:[^/]++/)"


def glob_expression(parts: Sequence[str]) -> str:
    """Return the regular expression of a glob's parts; `**` stands for any directories.

    What lies before a star is matched at the first place where it fits and never tried again, as
    in `fnmatch`: a pattern made to be slow takes no more than its length times that of the path.
    """
    groups: list[list[str]] = [[]]
    for part in parts:
        if part == "**":
            groups.append([])
        else:
            groups[-1].append(_part_expression(part))
    *before, last = groups
    if not before:
        return "/".join(last)
    out = "".join(f"{part}/" for part in before[0])
    for group in before[1:]:
        out += f"(?>{_DIRECTORIES}*?{''.join(f'{part}/' for part in group)})"
    return out + (f"{_DIRECTORIES}*{'/'.join(last)}" if last else ".+")


def _part_expression(part: str) -> str:
    first, *others = _between_stars(part)
    if not others:
        return first
    *middle, last = others
    return first + "".join(f"(?>[^/]*?{one})" for one in middle if one) + "[^/]*" + last


def _between_stars(part: str) -> list[str]:
    """Return the expressions of what lies before, between and after the stars of a part."""
    out, index = [""], 0
    while index < len(part):
        letter = part[index]
        index += 1
        if letter == "*":
            out.append("")
        elif letter == "?":
            out[-1] += "[^/]"
        elif letter == "[" and (end := part.find("]", index + 1)) > 0:
            out[-1] += _class_expression(part[index:end])
            index = end + 1
        else:
            out[-1] += re.escape(letter)
    return out


def _class_expression(chosen: str) -> str:
    """Return a class of letters; ranges stand, whatever else means something in one does not."""
    negated = chosen.startswith("!")
    letters = re.escape(chosen[negated:]).replace(r"\-", "-").replace("--", r"-\-")
    return f"[^/{letters}]" if negated else f"[{letters}]"
