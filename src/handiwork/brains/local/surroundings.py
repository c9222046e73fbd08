"""What a model is told of what stands in its sandbox: skills and memory stores. Pure.

Their names and texts were written by others than the agent's author, so each is kept on one line
and within a limit.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from handiwork.brains.local.memory import MAX_STORES

MAX_SKILLS = 64
"""Told of; an agent that has more is told how many it is not told of."""
MAX_NAME = 255
MAX_DESCRIPTION = 1024
MAX_INSTRUCTIONS = 4096
SKILLS_AT = "/workspace/skills"

_SKILLS = (
    "Skills are directories in your sandbox. Before work that one of them is about, read its"
    " SKILL.md and follow it:"
)
_STORES = (
    "Memory stores are directories in your sandbox whose files outlast this session. Look into them"
    " when you begin; write what is worth keeping into one that may be written:"
)


def with_surroundings(
    system: str, skills: Sequence[Mapping[str, Any]], stores: Iterable[Mapping[str, Any]]
) -> str:
    """Return the system prompt with the skills (their versions) and attached stores after it."""
    lines = [_skill(each) for each in skills[:MAX_SKILLS]]
    if len(skills) > MAX_SKILLS:
        lines.append(f"- {len(skills) - MAX_SKILLS} more below {SKILLS_AT}")
    parts = [system] if system else []
    parts += ["\n".join((_SKILLS, *lines))] if lines else []
    lines = [_store(each) for each in islice(stores, MAX_STORES)]
    parts += ["\n".join((_STORES, *lines))] if lines else []
    return "\n\n".join(parts)


def _skill(version: Mapping[str, Any]) -> str:
    where = f"- {SKILLS_AT}/{_line(version['name'], MAX_NAME)}"
    return _joined(where, _line(version["description"], MAX_DESCRIPTION))


def _store(resource: Mapping[str, Any]) -> str:
    access = "read only" if resource["access"] == "read_only" else "may be written"
    where = f"- {resource['mount_path']} ({_line(resource['name'], MAX_NAME)}; {access})"
    told = _joined(where, _line(resource.get("description"), MAX_DESCRIPTION))
    instructions = _line(resource.get("instructions"), MAX_INSTRUCTIONS)
    return f"{told} Instructions: {instructions}" if instructions else told


def _joined(where: str, description: str) -> str:
    return f"{where}: {description}" if description else where


def _line(text: str | None, longest: int) -> str:
    """Return a text on one line; what stands in others' words must not look like ours."""
    line = " ".join((text or "").split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
