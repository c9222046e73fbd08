"""The command line as a whole: its nouns, its exit codes, one line for each kind of failure."""

import asyncio

import pytest

from handiwork.cli import main
from handiwork.cli.invocation import Invocation
from handiwork.model.errors import ConfigError, ConflictError, PolicyDeniedError


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """Make `agent list` fail with an error."""

    def fail_with(error: BaseException) -> int:
        def call(self: Invocation, verb: object) -> None:
            raise error

        monkeypatch.setattr(Invocation, "call", call)
        return main.run(["agent", "list"])

    return fail_with


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--help"]) == 0
    said = capsys.readouterr().out
    for verb in [
        "up",
        "demo",
        "run",
        "doctor",
        "sandbox",
        "session",
        "policy",
        "secret",
        "agent",
        "audit",
    ]:
        assert verb in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "nonsense"),
        (["sandbox", "list", "--nonsense"], "--nonsense"),
        (["sandbox", "exec"], "SANDBOX_ID"),
        (["secret", "set", "key"], "--host"),
        (["audit", "list", "--limit", "none"], "--limit"),
        (["--config"], "--config"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(arguments) == 2
    line = capsys.readouterr().err
    assert line.startswith("handiwork: ")
    assert line.count("\n") == 1
    assert said.lower() in line.lower()


def test_errors_of_ours(failing, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(ConfigError("set it")) == 2
    assert failing(ConflictError("it is busy")) == 1
    assert failing(PolicyDeniedError("no", rule_id="p/r")) == 3
    assert capsys.readouterr().err.splitlines() == [
        "handiwork: set it",
        "handiwork: it is busy",
        "handiwork: no",
    ]


def test_an_error_of_ours_in_a_group(failing, capsys: pytest.CaptureFixture[str]) -> None:
    inner = BaseExceptionGroup("inner", [asyncio.CancelledError(), ConfigError("port in use")])
    assert failing(BaseExceptionGroup("outer", [inner])) == 2
    assert capsys.readouterr().err == "handiwork: port in use\n"


def test_what_is_not_ours_is_not_hidden(failing) -> None:
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError())
    with pytest.raises(ExceptionGroup):
        failing(ExceptionGroup("group", [ZeroDivisionError()]))


def test_an_interrupt_ends_as_shells_expect(failing) -> None:
    assert failing(KeyboardInterrupt()) == 130
