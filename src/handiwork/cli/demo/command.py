"""`handiwork demo`: a control plane of its own, the story, a summary; nothing is left behind."""

import asyncio
import secrets
import signal
import tempfile
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from handiwork.cli.demo import story
from handiwork.cli.demo.narrator import Narrator
from handiwork.cli.output import console, say
from handiwork.config import (
    ApiSettings,
    LocalBrainSettings,
    LogSettings,
    SessionSettings,
    Settings,
)
from handiwork.model.errors import HandiworkError
from handiwork.sandboxes.trees import remove_tree

LIMIT_SECONDS = 120.0
STOP_SECONDS = 30.0
IDLE_SECONDS = 2.0


def demo(
    context: typer.Context,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the demo's data directory.")] = False,
) -> None:
    """Serve one real session of Claude Managed Agents and check every claim made about it."""
    # Imported here, as the rest below: what a server needs takes longer to load than most verbs.
    from handiwork.observe import log

    del context
    directory = Path(tempfile.mkdtemp(prefix="handiwork-demo-"))
    narrator = Narrator(console)
    # The runner unwinds everything on SIGINT, also where a shell's background left it ignored;
    # SIGTERM is to end it in the same way.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with (directory / "log").open("w") as stream:
            log.set_up(level="info", process="control plane", stream=stream)
            uvloop.run(_demo(directory / "data", narrator))
        narrator.summary()
    except BaseException as error:
        keep = True
        say(f"log and data are kept in {directory}", "dim")
        if isinstance(error, TimeoutError):
            raise HandiworkError(
                f"the demo is stopped after {LIMIT_SECONDS:.0f} s, at: {narrator.failed}"
            ) from None
        raise
    finally:
        if not keep:
            remove_tree(directory)


async def _demo(data: Path, narrator: Narrator) -> None:
    # Imported here: loading every adapter takes longer than most verbs do.
    from handiwork.app import now, running
    from handiwork.cli.demo import upstream
    from handiwork.cli.demo.play import Stage, play

    names = (story.API_HOST, story.EVIL_HOST)
    key = f"sk-demo-{secrets.token_hex(20)}"
    async with asyncio.timeout(LIMIT_SECONDS):
        narrator.say(
            f"A small HTTPS service stands for the world: {story.API_HOST}, on this machine's"
            " loopback, with a CA of its own. The demo's policy names it as a service."
        )
        async with upstream.running(names, key, now()) as world:
            with narrator.step("control plane, proxy and local brain are up"):
                settings = _settings(data)
                control = running(settings)
                plane = await control.__aenter__()
            try:
                await play(Stage(plane=plane, world=world, key=key), narrator)
            finally:
                with narrator.step("everything stopped"):
                    async with asyncio.timeout(STOP_SECONDS):
                        await control.__aexit__(None, None, None)


def _settings(data: Path) -> Settings:
    return Settings(
        data_dir=str(data),
        api=ApiSettings(port=0),
        local_brain=LocalBrainSettings(port=0),
        sessions=SessionSettings(idle_seconds=IDLE_SECONDS),
        log=LogSettings(level="info"),
    )
