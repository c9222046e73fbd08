"""How the demo speaks."""

import io

import pytest
from rich.console import Console

from handiwork.cli.demo.narrator import Narrator


@pytest.fixture
def page() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def narrator(page: io.StringIO) -> Narrator:
    return Narrator(Console(file=page, width=200))


def test_steps_are_told_when_they_end_and_summed_up(narrator: Narrator, page: io.StringIO) -> None:
    with narrator.step("the first [b]"):
        assert page.getvalue() == ""
    with narrator.step("the second"):
        pass
    assert [line.split("  ")[0] for line in page.getvalue().splitlines()] == [
        "✓ the first [b]",
        "✓ the second",
    ]
    narrator.summary()
    table = page.getvalue()
    assert table.count("the first") == 2
    assert "all" in table
    assert "handiwork doctor" in table
    assert narrator.failed == ""


def test_the_first_step_that_fails_is_known(narrator: Narrator, page: io.StringIO) -> None:
    with pytest.raises(KeyError), narrator.step("opened"):
        raise KeyError("x")
    with pytest.raises(OSError), narrator.step("closed"):
        raise OSError("y")
    assert narrator.failed == "opened"
    assert page.getvalue() == "✗ opened\n✗ closed\n"


def test_a_summary_of_nothing(narrator: Narrator, page: io.StringIO) -> None:
    narrator.summary()
    assert "0.00" in page.getvalue()


def test_what_the_agent_does_is_shown_short_and_harmless(
    narrator: Narrator, page: io.StringIO
) -> None:
    narrator.say("user: go")
    narrator.call("bash", "echo\n  [red]" + "x" * 500)
    narrator.answer("one\n\ntwo\nthree\x1b[2J\nfour\n", is_error=False)
    narrator.message("[/done]")
    lines = page.getvalue().splitlines()
    assert lines[0] == "user: go"
    assert lines[1].startswith("  → bash  echo [red]xxx")
    assert len(lines[1]) < 180
    assert [line.strip() for line in lines[2:5]] == ["two", "three\ufffd[2J", "four"]
    assert lines[5] == "  agent: [/done]"
