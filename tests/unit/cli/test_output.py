"""What verbs print: nothing of it steers a terminal, and errors tell their kind."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.cli import output
from handiwork.model import errors
from handiwork.model.agent import AgentSettings

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOSTILE = "[red]x[/red] [/no] :smile: \x1b]0;title\x07 \u202eab"


@given(st.text())
def test_plain_text_holds_nothing_that_steers(text: str) -> None:
    shown = output.plain(text)
    assert len(shown) == len(text)
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    assert output.plain(shown) == shown


def test_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(HOSTILE + "x" * 300)
    said = capsys.readouterr().out
    assert said == "[red]x[/red] [/no] :smile: \ufffd]0;title\ufffd \ufffdab" + "x" * 300 + "\n"


def test_a_table_is_not_cut_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": "sbx_" + "a" * 60, "reason": HOSTILE + "y" * 200, "rules": ["a", "b"]}]
    output.show(rows, ("id", "rules", "reason", "nothing"), as_json=False)
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["id", "rules", "reason", "nothing"]
    assert line.startswith("sbx_" + "a" * 60 + "  a, b")
    assert "[red]x[/red] [/no]" in line
    assert "y" * 200 in line
    assert "\x1b" not in line


def test_json_is_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    row = AgentSettings(agent_id="agent_1", tier="namespace", updated_at=AT)
    output.show([row], ("agent_id",), as_json=True)
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["tier"], one["updated_at"]) == ("namespace", "2026-01-02T03:04:05Z")
    output.show_one(row, as_json=True)
    assert json.loads(capsys.readouterr().out) == one
    output.show_one(row, as_json=False)
    assert "agent_id  agent_1\n" in capsys.readouterr().out


@pytest.mark.parametrize(("ok", "mark"), [(True, "✓"), (False, "✗")])
def test_a_mark(ok: bool, mark: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.marked(ok, "[x]")
    assert capsys.readouterr().out == f"{mark} [x]\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("a"), 2),
        (errors.UnauthorizedError("a"), 2),
        (errors.NotFoundError("a"), 2),
        (errors.SecretMissingError("a"), 2),
        (errors.UnsupportedError("a"), 2),
        (errors.PolicyDeniedError("a"), 3),
        (errors.ConflictError("a"), 1),
        (errors.SandboxUnavailableError("a"), 1),
        (errors.HandiworkError("a"), 1),
    ],
)
def test_exit_codes(error: errors.HandiworkError, code: int) -> None:
    assert output.fail(error) == code


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.fail(errors.ConfigError("first\n  second \x1b[2J"))
    assert capsys.readouterr().err == "handiwork: first second \ufffd[2J\n"


def test_an_error_that_is_not_ours_is_not_hidden() -> None:
    with pytest.raises(KeyError):
        output.fail(KeyError("x"))
