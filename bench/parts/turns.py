"""Turns of a session that are more than calls one by one: side by side, and interrupted."""

import statistics
import time
from pathlib import Path

from anthropic import AsyncAnthropic

from harness import Bench
from parts.toolcalls import Brain, Environment, events, is_over, say, session, turn, until

LOOK_SECONDS = 0.002
SLEEP = "30.0625"
"""A sleep that no other process of this machine sleeps."""
SDK_SLEEP = "3.0625"


async def measure_parallel(bench: Bench, client: AsyncAnthropic, served: Brain) -> None:
    """three_parallel_seconds: three tools of a second each in one turn, first call to last result."""
    calls = [{"tool": "wait", "input": {"seconds": "1"}} for _ in range(3)]
    step = {"calls": calls}
    taken: dict[str, list[float]] = {"ours": [], "sdk": []}
    async with (
        session(client, served.ours, step) as ours,
        session(client, served.theirs, step) as theirs,
    ):
        for number in range(bench.times(6, 1) + 1):
            for name, each in (("ours", ours), ("sdk", theirs)):
                said = await turn(client, each.id)
                if number:
                    taken[name].append(_together_seconds(said))
    sdk = round(statistics.median(taken["sdk"]), 3)
    bench.record("three_parallel_seconds", taken["ours"], "s", sdk_seconds=sdk)


def _together_seconds(said: list) -> float:
    begun = [event.processed_at for event in said if event.type == "agent.custom_tool_use"]
    ended = [event for event in said if event.type == "user.custom_tool_result"]
    if len(begun) != 3 or [event.content[0].text for event in ended] != ["exit code 0"] * 3:
        raise RuntimeError(f"three calls were answered by {ended}")
    return (max(event.processed_at for event in ended) - min(begun)).total_seconds()


async def measure_interrupt(bench: Bench, client: AsyncAnthropic, served: Brain) -> None:
    """interrupt_ms: the user's interrupt sent, until nothing of the command is left on the host.

    The same session is spoken to again and again: it goes on after each interrupt.
    """
    taken = []
    async with session(client, served.ours, _sleeping(SLEEP)) as made:
        for _ in range(bench.times(20, 6)):
            taken.append(await _interrupted(client, made.id, SLEEP))
    sdk = await _sdk_interrupted(client, served.theirs)
    bench.record("interrupt_ms", taken, "ms", scale=1000, sdk_ms_of_a_3_s_command=round(sdk * 1000))


async def _sdk_interrupted(client: AsyncAnthropic, environment: Environment) -> float:
    """The SDK's worker lets the command run to its end."""
    async with session(client, environment, _sleeping(SDK_SLEEP)) as made:
        return await _interrupted(client, made.id, SDK_SLEEP)


def _sleeping(seconds: str) -> dict:
    return {"call": {"tool": "bash", "input": {"command": f"sleep {seconds}; true"}}}


async def _interrupted(client: AsyncAnthropic, session_id: str, seconds: str) -> float:
    await say(client, session_id)
    await until(lambda: bool(_sleepers(seconds)), 0.02)
    running = _sleepers(seconds)
    before = time.perf_counter()
    await client.beta.sessions.events.send(session_id, events=[{"type": "user.interrupt"}])
    await until(lambda: not any(_sleeps(process, seconds) for process in running), LOOK_SECONDS)
    taken = time.perf_counter() - before

    async def over() -> bool:
        return is_over((await events(client, session_id))[-1])

    await until(over, 0.02)
    return taken


def _sleepers(seconds: str) -> list[Path]:
    entries = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [entry for entry in entries if _sleeps(entry, seconds)]


def _sleeps(process: Path, seconds: str) -> bool:
    try:
        return (process / "cmdline").read_bytes() == b"sleep\0%s\0" % seconds.encode()
    except OSError:
        return False
