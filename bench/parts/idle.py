"""Many sessions in one process: what an idle one costs, and whether the busy ones keep their leases."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from anthropic import AsyncAnthropic

from harness import Bench
from parts.toolcalls import Brain, Environment, call, control_plane, opened, say

LEASE_SECONDS = 4
BEAT_SECONDS = LEASE_SECONDS / 2
LATE_SECONDS = BEAT_SECONDS + 1.0
"""A lease whose beats are further apart than this missed one."""
SETTINGS = (
    "[sessions]\nmax_sessions = 320\nidle_seconds = 0.5\n"
    f"lease_seconds = {LEASE_SECONDS}\ndrain_seconds = 0\n[sandbox]\nmax_sandboxes = 320\n"
)
BUSY = "for i in $(seq 100); do sleep 1; done"
"""Longer than it is looked at; it is cut at the end."""
WAIT_SECONDS = 120.0
TOGETHER = 16
REST_SECONDS = 0.5
MIB = 1 << 20


async def measure(bench: Bench, client: AsyncAnthropic, served: Brain, directory: Path) -> None:
    """session_idle_mib: our memory for each session whose sandbox sleeps, while others work."""
    idle, active = bench.times(200, 48), bench.times(50, 10)
    environment = served.many
    directory.mkdir(mode=0o711)
    async with AsyncAnthropic(base_url=served.url, auth_token=environment.key) as queue:
        with control_plane(directory, served, environments=[environment], settings=SETTINGS) as pid:
            await _rested(client, queue, environment, max(16, idle // 4))
            before = proportional_bytes(pid)
            await _rested(client, queue, environment, idle)
            after = proportional_bytes(pid)
            working = [await _begun(client, environment, call(BUSY)) for _ in range(active)]
            missed, beats = await _missed(queue, environment, working, bench.times(20, 5))
            during = proportional_bytes(pid)
    bench.record(
        "session_idle_mib",
        [max(0.0, (after - before) / idle / MIB)],
        "MiB",
        idle=idle,
        active=active,
        active_mib=round((during - after) / active / MIB, 3),
        process_mib=round(after / MIB, 1),
        beats=beats,
        missed_beats=missed,
    )


async def _begun(client: AsyncAnthropic, environment: Environment, step: dict) -> str:
    made = await opened(client, environment, step)
    await say(client, made.id)
    return made.id


async def _rested(
    client: AsyncAnthropic, queue: AsyncAnthropic, environment: Environment, count: int
) -> None:
    """Let so many sessions run a command, and wait until each has been let go and sleeps."""
    step = call("echo hi > here")
    for start in range(0, count, TOGETHER):
        wanted = min(TOGETHER, count - start)
        ids = {await _begun(client, environment, step) for _ in range(wanted)}
        await _items(queue, environment, ids, lambda item: item.state == "stopped")
    await asyncio.sleep(REST_SECONDS)


async def _items(
    queue: AsyncAnthropic,
    environment: Environment,
    sessions: set[str],
    holds: Callable[[object], bool],
) -> None:
    """Wait until it holds for the newest item of each session."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            page = await queue.beta.environments.work.list(environment.id, limit=100)
            found = {item.data.id for item in page.data if holds(item)}
            if sessions <= found:
                return
            await asyncio.sleep(0.1)


async def _missed(
    queue: AsyncAnthropic, environment: Environment, sessions: list[str], seconds: float
) -> tuple[int, int]:
    """Watch the beats of working sessions as the brain has them; return the missed, and all."""
    wanted = set(sessions)
    await _items(queue, environment, wanted, lambda item: item.latest_heartbeat_at is not None)
    last: dict[str, str] = {}
    seen: dict[str, float] = {}
    missed = beats = 0
    ends = time.monotonic() + seconds
    while (now := time.monotonic()) < ends:
        page = await queue.beta.environments.work.list(environment.id, limit=100)
        found = {item.data.id: item for item in page.data if item.data.id in wanted}
        if lost := [found[one] for one in wanted if found[one].state != "active"]:
            raise RuntimeError(f"{len(lost)} working sessions lost their leases: {lost[0]}")
        for one in wanted:
            beat = str(found[one].latest_heartbeat_at)
            if beat != last.get(one):
                late = one in seen and now - seen[one] > LATE_SECONDS
                missed, beats = missed + late, beats + 1
                last[one], seen[one] = beat, now
        await asyncio.sleep(0.25)
    return missed + sum(ends - at > LATE_SECONDS for at in seen.values()), beats


def proportional_bytes(pid: int) -> int:
    """Return the memory of a process, shared pages by their share (proc(5), smaps_rollup)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no Pss of {pid}")
