"""`handiwork up`: serve until SIGTERM."""

import asyncio
import signal
from typing import TYPE_CHECKING

import typer
import uvloop

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import say
from handiwork.process import raise_descriptors

if TYPE_CHECKING:
    from handiwork.app import Running


def up(context: typer.Context) -> None:
    """Start the control plane, the proxy and (unless disabled) the local brain; stop on SIGTERM."""
    invocation: Invocation = context.obj
    settings = invocation.settings
    # Imported here: loading every adapter takes longer than most verbs do, or telling a wrong setting.
    from handiwork.app import running
    from handiwork.observe import log

    log.set_up(level=settings.log.level, format=settings.log.format, process="control plane")

    async def serve() -> None:
        stop, hurry = asyncio.Event(), asyncio.Event()

        def told() -> None:
            (hurry if stop.is_set() else stop).set()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told)
        async with running(settings) as control:
            _tell(control)
            await stop.wait()
            seconds = settings.sessions.drain_seconds
            say(f"stopping: running calls may take {seconds:g} s to end; a second signal cuts them")
            await control.drain(hurry)
            say("stopping: sessions are let go, sandboxes sleep")

    raise_descriptors()
    uvloop.run(serve())


def _tell(control: "Running") -> None:
    key_file = control.layout.admin_key
    say(f"API          {control.api_url}  (key in {key_file})")
    if control.brain_url:
        key_file = control.layout.local_brain_key
        say(f"local brain  {control.brain_url}  (key in {key_file})")
        say(f"environment  {control.environment_id}  (of the local brain)")
    say("serving; stop with Ctrl-C or SIGTERM")
