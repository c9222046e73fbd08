"""The manners of the house, held by machine. A fault is told as `file: what`."""

import importlib.util
import itertools
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from style import places, sizes, words
from style.sources import ROOT, name, scripts, tracked, written_in

_spec = importlib.util.spec_from_file_location(
    "generate_settings", ROOT / "docs/generate_settings.py"
)
generate_settings = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate_settings)

# Modules without a test file of their own name, and why. Modules of types alone need none either.
UNTESTED = {
    "**/__init__.py": "names only; what it names is tested where it is written",
    "**/__main__.py": "a few lines that start a program; integration tests start it",
    "**/protocol.py": "a port: its contract suite runs on every adapter",
    "**/migrations/**/*": "run and compared with the tables by the store's own tests",
    "testing/*": "fakes: the contract suites run on them",
}
# Files of bytes, not of text, are not read.
BYTES = {".png", ".woff2", ".ico", ".bin"}


def faults(paths: Iterable[Path], check: Callable[[str], list[str]]) -> list[str]:
    return [
        f"{name(path)}: {fault}"
        for path in paths
        for fault in check(path.read_text(encoding="utf-8", errors="replace"))
    ]


def none(found: list[str]) -> None:
    """Fail with one line a fault."""
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def test_no_file_is_longer_than_its_limit() -> None:
    none(faults([*written_in(".py", ".c", ".h"), *scripts()], sizes.long_file))


@pytest.mark.parametrize(
    ("paths", "functions"),
    [
        (written_in(".py"), sizes.python_functions),
        (written_in(".c", ".h"), sizes.c_functions),
        (scripts(), sizes.shell_functions),
    ],
    ids=["python", "c", "shell"],
)
def test_no_function_is_longer_than_its_limit(paths: list[Path], functions) -> None:
    none(faults(paths, lambda text: sizes.long_functions(functions(text))))


def test_files_are_named_after_what_they_do() -> None:
    paths = [*written_in(".py", ".c", ".h"), *scripts()]
    assert not [
        f"{name(path)}: {fault}" for path in paths for fault in words.banned_name(path.name)
    ]


def test_each_module_has_its_test_file() -> None:
    source = ROOT / "src/handiwork"
    excepted = {path for pattern in UNTESTED for path in source.glob(pattern)}
    none(
        [
            f"{name(path)}: has no test file of its own"
            for path in written_in(".py", under="src/handiwork")
            if path not in excepted
            and any(sizes.python_functions(path.read_text()))
            and not mirrored(path.relative_to(source)).exists()
        ]
    )


def mirrored(module: Path) -> Path:
    return ROOT / "tests/unit" / module.parent / f"test_{module.name}"


def test_comments_tell_no_history() -> None:
    paths = [*written_in(".py", ".c", ".h"), *scripts()]
    told = [
        faults([path], lambda text, end=path.suffix: words.history(text, end)) for path in paths
    ]
    none(list(itertools.chain.from_iterable(told)))


def test_a_silenced_check_names_its_code_and_its_reason() -> None:
    none(faults(written_in(".py", under="src"), words.silenced))
    elsewhere = set(written_in(".py")) - set(written_in(".py", under="src"))
    none(faults(sorted(elsewhere), lambda text: words.silenced(text, reasons=False)))


def test_no_secret_is_formatted_into_text() -> None:
    none(faults(written_in(".py", under="src"), words.formatted_secrets))


def test_every_task_has_an_owner() -> None:
    none(faults(written_in(".py", under="src"), words.ownerless_tasks))


def test_nothing_of_a_machine_or_a_registry_is_in_the_repository() -> None:
    none(faults([path for path in tracked() if path.suffix not in BYTES], places.private))


def test_every_row_of_the_specification_has_its_proof() -> None:
    def read(path: str) -> str | None:
        return (ROOT / path).read_text() if (ROOT / path).is_file() else None

    none(places.unproven((ROOT / "SPECIFICATION.md").read_text(), read))


def test_the_locks_hold_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    use = [*project["project"]["dependencies"], *groups["build"]]
    none(
        places.unlocked(use, (ROOT / "requirements.lock").read_text())
        + places.unlocked([*use, *groups["dev"]], (ROOT / "requirements-dev.lock").read_text())
    )


def test_the_page_of_settings_is_what_the_code_says() -> None:
    page = generate_settings.page()
    written = (ROOT / "docs/reference/settings.md").read_text()
    assert written == page, "run: .venv/bin/python docs/generate_settings.py"


def test_every_link_between_pages_leads_somewhere() -> None:
    dead = [
        fault
        for path in written_in(".md")
        for fault in faults(
            [path],
            lambda text, folder=path.parent: places.dead_links(
                text, lambda target: (folder / target).exists()
            ),
        )
    ]
    none(dead)
