"""`handiwork up`: what it says, and that SIGTERM ends it; `tests/integration/test_cli.py` runs it."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog

from handiwork import app
from handiwork.model.errors import ConfigError
from handiwork.store.layout import Layout


@dataclass
class Serving:
    """What a control plane tells of itself."""

    layout: Layout
    api_url: str = "http://127.0.0.1:8787"
    brain_url: str = "http://127.0.0.1:8788"
    environment_id: str = "env_1"
    hurried: list[bool] = field(default_factory=list)

    async def drain(self, hurry: asyncio.Event) -> None:
        self.hurried.append(hurry.is_set())
        os.kill(os.getpid(), signal.SIGTERM)
        await hurry.wait()
        self.hurried.append(True)


@pytest.fixture(autouse=True)
def own_log():
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def serve(monkeypatch: pytest.MonkeyPatch, control: Serving, ended: list[bool]) -> None:
    @contextlib.asynccontextmanager
    async def running(_settings: Any) -> AsyncIterator[Serving]:
        os.kill(os.getpid(), signal.SIGTERM)
        yield control
        ended.append(True)

    monkeypatch.setattr(app, "running", running)


@pytest.mark.parametrize("brain", ["http://127.0.0.1:8788", ""])
def test_it_serves_until_sigterm(
    brain: str, handiwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[bool] = []
    layout = Layout(tmp_path / ("long" * 40))
    control = Serving(layout, brain_url=brain)
    serve(monkeypatch, control, ended)
    done = handiwork("up")
    assert (done.code, ended) == (0, [True])
    assert control.hurried == [False, True], "the second signal did not cut the drain"
    lines = done.out.splitlines()
    assert lines[0] == f"API          http://127.0.0.1:8787  (key in {layout.admin_key})"
    assert ("local brain" in done.out) == bool(brain)
    assert ("env_1" in done.out) == bool(brain)
    assert lines[-1].startswith("stopping")


def test_a_start_that_is_refused(handiwork, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.asynccontextmanager
    async def running(_settings: Any) -> AsyncIterator[None]:
        raise ConfigError("port 8787 is in use")
        yield

    monkeypatch.setattr(app, "running", running)
    done = handiwork("up")
    assert (done.code, done.out) == (2, "")
    assert done.err == "handiwork: port 8787 is in use\n"


def test_settings_are_read_first(handiwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDIWORK_LOG_LEVEL", "loud")
    done = handiwork("up")
    assert (done.code, "log.level" in done.err) == (2, True)
