"""The real engine in a process that dies when told: store, ledger, brain and sandboxes are real.

Its one custom tool writes its runs into a file outside of everything, before and after it works.
`sabotage` breaks a promise on purpose, so that the check is seen to notice.
"""

import asyncio
import contextlib
import os
import secrets
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop

import engine
from handiwork.brains.anthropic import AnthropicBrain
from handiwork.brains.history import History
from handiwork.observe import log
from handiwork.store.sqlite_ledger import SqliteLedger
from handiwork.testing.store import MemoryStore
from handiwork.tools.registry import tool
from handiwork.tools.toolset import stock

RUNS = "runs"
POLLS_PER_MINUTE = 3000
"""Its brain is its own, so nobody's limit holds the sessions up between two deaths."""


def counting(place: Path):
    """Return the tool that counts its own runs below a directory."""
    runs = os.open(place / RUNS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(*words: str) -> None:
        os.write(runs, " ".join(words).encode() + b"\n")

    def die(key: str) -> None:
        """Once for each key, however often it is run."""
        try:
            os.close(os.open(place / f"died-{key}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    @tool("count", description="counts its runs")
    async def count(context, *, key: str, seconds: float = 0.0, die_at: str = "") -> str:
        note("begin", context.tool_use_id, key)
        if die_at == "begin":
            die(key)
        await asyncio.sleep(seconds)
        answer = secrets.token_hex(6)
        note("end", context.tool_use_id, answer)
        if die_at == "end":
            die(key)
        return answer

    return count


def break_it(how: str) -> None:
    """Take one promise away."""
    if how == "no ledger":
        forgetful = MemoryStore().ledger
        for name in ("start", "store", "settle", "get", "open"):
            setattr(SqliteLedger, name, _unbound(getattr(forgetful, name)))
    elif how == "no reconcile":

        async def nothing(self, api, work):
            return History(), set()

        AnthropicBrain._history = nothing
    elif how:
        raise ValueError(how)


def _unbound(method):
    def call(self, *given, **named):
        return method(*given, **named)

    return call


async def serve(told: dict, hold: Connection) -> None:
    registry = stock()
    registry.add(counting(Path(told["place"])))
    break_it(told["sabotage"])
    data = Path(told["data"])
    async with engine.running(
        data,
        told["brain"],
        idle_seconds=1.0,
        lease_seconds=3,
        registry=registry,
        polls_per_minute=POLLS_PER_MINUTE,
    ):
        await asyncio.get_running_loop().run_in_executor(None, _held, hold)


def _held(hold: Connection) -> None:
    """Wait until whoever started us lets go."""
    with contextlib.suppress(EOFError):
        hold.recv_bytes()


def main(told: dict, log_file: str, hold: Connection) -> None:
    """Be an engine, in a process of its own, until it is killed or `hold` closes at the other end."""
    for stream in (1, 2):
        os.dup2(os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    log.set_up(level="info", format="json", process="engine")
    uvloop.run(serve(told, hold))
