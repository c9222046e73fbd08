"""Verbs in this process, against an API on real sockets that a thread of its own serves."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from api_stand_in import Served, served_api
from handiwork.cli import main


@dataclass
class Done:
    """What a verb gave."""

    code: int
    out: str
    err: str


Verb = Callable[..., Done]


@pytest.fixture
def handiwork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Verb:
    """Run one command line on the data directory `tmp_path`."""
    monkeypatch.setenv("HANDIWORK_DATA_DIR", str(tmp_path))

    def run(*arguments: str) -> Done:
        capfd.readouterr()
        code = main.run(arguments)
        printed = capfd.readouterr()
        return Done(code, printed.out, printed.err)

    return run


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Give the verbs from now on this standard input."""
    with contextlib.ExitStack() as stack:

        def give(content: bytes) -> None:
            (tmp_path / "stdin").write_bytes(content)
            monkeypatch.setattr("sys.stdin", stack.enter_context((tmp_path / "stdin").open()))

        yield give


@dataclass
class Api:
    """A served API whose store other threads may use."""

    served: Served
    loop: asyncio.AbstractEventLoop

    def __call__(self, work: object) -> object:
        """Run a coroutine where the API runs."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)  # type: ignore[arg-type]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """An API on the unix socket of the data directory, and on TCP."""
    ready = threading.Event()
    found: list[Api] = []
    stop = asyncio.Event()

    async def serve() -> None:
        async with served_api(tmp_path) as served:
            found.append(Api(served, asyncio.get_running_loop()))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    thread.start()
    try:
        assert ready.wait(20)
        yield found[0]
    finally:
        if found:
            found[0].loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        structlog.reset_defaults()
