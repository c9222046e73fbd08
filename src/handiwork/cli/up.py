"""`handiwork up`: serve until SIGTERM."""

import asyncio
import signal

import typer

from handiwork.app import Running, running
from handiwork.cli.invocation import Invocation
from handiwork.cli.output import console
from handiwork.observe import log


def up(context: typer.Context) -> None:
    """Start the control plane, the proxy and (unless disabled) the local brain; stop on SIGTERM."""
    invocation: Invocation = context.obj
    settings = invocation.settings
    log.set_up(level=settings.log.level, format=settings.log.format, process="control plane")

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with running(settings) as control:
            _tell(control)
            await stop.wait()
            console.print("stopping: sessions are let go, sandboxes sleep")

    asyncio.run(serve())


def _tell(control: Running) -> None:
    console.print(f"API          {control.api_url}  (key in {control.layout.admin_key})")
    if control.brain_url:
        console.print(
            f"local brain  {control.brain_url}  (key in {control.layout.local_brain_key},"
            f" environment {control.environment_id})"
        )
    console.print("serving; stop with Ctrl-C or SIGTERM")
