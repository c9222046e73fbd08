"""Which of the host's apt sources serve a suite; both of their forms, sources.list(5). Pure."""

import re
from collections.abc import Iterable

_OPTIONS = re.compile(r"deb\s+(\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)")
_FIELD = re.compile(r"^(?P<name>[A-Za-z-]+):[ \t]*(?P<value>.*(\n[ \t].*)*)", re.MULTILINE)


def of_suite(suite: str, texts: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """Return what serves the suite and its updates: lines of the old form, stanzas of the new.

    `texts` are (file name, text); other suites are somebody else's packages, and left out.
    """
    lines, stanzas = [], []
    for name, text in texts:
        if name.endswith(".list"):
            lines += [line for line in text.splitlines() if _serves_line(line.strip(), suite)]
        elif name.endswith(".sources"):
            whole = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
            parts = re.split(r"\n[ \t]*\n", whole)
            stanzas += [part.strip() for part in parts if _serves_stanza(part, suite)]
    return "\n".join(lines), "\n\n".join(stanzas)


def _is_of(found: str, suite: str) -> bool:
    return found == suite or found.startswith((f"{suite}-", f"{suite}/"))


def _serves_line(line: str, suite: str) -> bool:
    found = _OPTIONS.match(line)
    return found is not None and _is_of(found["suite"], suite)


def _serves_stanza(text: str, suite: str) -> bool:
    fields = {m["name"].lower(): m["value"].split() for m in _FIELD.finditer(text)}
    if [word.lower() for word in fields.get("enabled", ["yes"])] == ["no"]:
        return False
    suites = fields.get("suites", [])
    return (
        "deb" in fields.get("types", []) and bool(suites) and all(_is_of(s, suite) for s in suites)
    )
