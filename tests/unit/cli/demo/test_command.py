"""`handiwork demo` around its play: what is kept, what is told, how it ends when it is ended."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from handiwork.cli import main
from handiwork.cli.demo import command
from handiwork.cli.demo.claims import ClaimError
from handiwork.cli.demo.narrator import Narrator


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Let the demo keep its data here, and give the signals back after it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, action in before.items():
        signal.signal(number, action)


def demo_that(monkeypatch: pytest.MonkeyPatch, error: BaseException | None) -> None:
    async def play(data: Path, narrator: Narrator) -> None:
        data.mkdir()
        with narrator.step("the only step"):
            if error:
                raise error

    monkeypatch.setattr(command, "_demo", play)


def kept(folder: Path) -> list[Path]:
    return list(folder.glob("handiwork-demo-*"))


def test_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    demo_that(monkeypatch, None)
    assert main.run(["demo"]) == 0
    assert kept(tmp_path) == []
    assert "the only step" in capsys.readouterr().out
    assert main.run(["demo", "--keep"]) == 0
    assert len(kept(tmp_path)) == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ClaimError("masked", "it came back"), "the demo's claim 'masked' does not hold"),
        (TimeoutError(), "the demo is stopped after 120 s, at: the only step"),
    ],
)
def test_a_failure_keeps_the_evidence(
    error: Exception,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    demo_that(monkeypatch, error)
    assert main.run(["demo"]) == 1
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert "✗ the only step" in printed.out
    (folder,) = kept(tmp_path)
    assert str(folder) in printed.out


def test_sigterm_unwinds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unwound = []

    async def play(data: Path, narrator: Narrator) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(30)
        finally:
            unwound.append(True)

    monkeypatch.setattr(command, "_demo", play)
    assert main.run(["demo"]) == 130
    assert unwound == [True]
