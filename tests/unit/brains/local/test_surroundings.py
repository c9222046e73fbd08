"""A model is told of its skills and memory stores, each on one line and within limits."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from handiwork.brains.local import surroundings
from handiwork.brains.local.surroundings import with_surroundings


def store(**more: Any) -> dict[str, Any]:
    given = {"name": "Notes", "description": "", "instructions": None, "access": "read_write"}
    return {**given, "mount_path": "/mnt/memory/notes", **more}


def test_without_any_the_system_prompt_stays_as_it_is() -> None:
    assert with_surroundings("Be good.", [], []) == "Be good."
    assert with_surroundings("", [], []) == ""


def test_names_descriptions_instructions_and_paths_are_told() -> None:
    skills = [{"name": "pdf", "description": "Fill in\n# forms"}, {"name": "x", "description": ""}]
    stores = [
        store(description="What was\nlearned", instructions="Read  it\nfirst"),
        store(name="Law", mount_path="/mnt/memory/law", access="read_only"),
    ]
    told = with_surroundings("Be good.", skills, stores)
    assert told.startswith("Be good.\n\n")
    assert [line for line in told.splitlines() if line.startswith("- ")] == [
        "- /workspace/skills/pdf: Fill in # forms",
        "- /workspace/skills/x",
        "- /mnt/memory/notes (Notes; may be written): What was learned Instructions: Read it first",
        "- /mnt/memory/law (Law; read only)",
    ]


@given(st.lists(st.text(max_size=9000), min_size=4, max_size=4))
def test_what_others_wrote_stays_short_and_on_its_line(texts: list[str]) -> None:
    one, two, three, four = texts
    skills = [{"name": one or "a", "description": two}]
    told = with_surroundings("", skills, [store(name=three, description=two, instructions=four)])
    assert len(told.splitlines()) == 5
    assert len(told) < 8000


def test_many_skills_are_counted() -> None:
    skills = [{"name": f"s{n}", "description": "d"} for n in range(surroundings.MAX_SKILLS + 3)]
    lines = with_surroundings("", skills, []).splitlines()
    assert lines[-1] == "- 3 more below /workspace/skills"
    assert len(lines) == surroundings.MAX_SKILLS + 2
