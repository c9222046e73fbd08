"""What must not leave the machine it was written on, and what must point somewhere."""

import re
from collections.abc import Callable, Sequence

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Each is put together from halves, so that this file does not hold what it looks for.
_HALVES = [
    (r"(?<![\w}\])$…])/wo", r"rk/"),
    (r"\bsha", r"red/(notes|spikes|mockups|DESIGN)"),
    (r"\bDESIGN", r"(\.md| ?§)"),
    (r"/tmp/ho", r"use"),
    (r"/opt/py", r"pi"),
    (r"/root/\.py", r"env"),
    (r"pypi\.o", r"rg"),
    (r"python", r"hosted\.org"),
    (r"registry\.npm", r"js\.org"),
    (r"(deb|security|snapshot|archive)\.(deb", r"ian|ubuntu)\.(org|com)"),
    (r"proxy\.go", r"lang\.org"),
]
_PRIVATE = re.compile("|".join(first + second for first, second in _HALVES))
_EVIDENCE = re.compile(r"`((?:tests|bench)/[\w./-]+?\.(?:py|sh|c))(?:::(\w+))?[^`]*`")
_LOCKED = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")


def private(text: str) -> list[str]:
    """Name the places of a workplace, and the hosts of package registries, that a text gives away."""
    return [
        f"line {number}: {found.group()!r} belongs to a machine, not to the project"
        for number, line in enumerate(text.splitlines(), 1)
        if (found := _PRIVATE.search(line))
    ]


def unproven(specification: str, read: Callable[[str], str | None]) -> list[str]:
    """Name the rows of a specification without a test or benchmark that is there.

    `read` gives the text of a file of the repository, or None.
    """
    faults = []
    for number, line in enumerate(specification.splitlines(), 1):
        if not line.startswith("|") or set(line) <= set("|-: ") or _is_head(specification, number):
            continue
        evidence = _EVIDENCE.findall(line)
        if not evidence:
            faults.append(f"line {number}: no test or benchmark is named")
        for path, test in evidence:
            text = read(path)
            if text is None:
                faults.append(f"line {number}: {path} is not there")
            elif test and not re.search(rf"\b{re.escape(test)}\b", text):
                faults.append(f"line {number}: {path} has no {test}")
    return faults


def _is_head(text: str, number: int) -> bool:
    following = text.splitlines()[number : number + 1]
    return bool(following) and following[0].startswith("|") and set(following[0]) <= set("|-: ")


def dead_links(markdown: str, exists: Callable[[str], bool]) -> list[str]:
    """Name the relative links of a page that lead nowhere."""
    return [f"link to {target}" for target in _LINK.findall(markdown) if not exists(target)]


def unlocked(requirements: Sequence[str], lock: str) -> list[str]:
    """Name the requirements that a lock file does not meet."""
    locked = {canonicalize_name(name): version for name, version in _LOCKED.findall(lock)}
    return [
        f"{wanted}: locked is {locked.get(canonicalize_name(wanted.name))}; run ./run lock"
        for wanted in map(Requirement, requirements)
        if not wanted.specifier.contains(locked.get(canonicalize_name(wanted.name), "0"))
    ]
