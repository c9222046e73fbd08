"""Half an hour of sessions that come and go, and whether anything of ours grows meanwhile.

`python bench/soak.py [--minutes 30] [--users 6] [--json]` runs a real `handiwork up` with its local
brain. Users make sessions with tools side by side, interrupts, sleeps and wakes, and drop them, in rounds.
Memory, descriptors, threads, tasks and processes are sampled when a round is over and nobody has a
session: what is held then belongs to nobody. The slope over the second half says how much each grew
in it. Exit 1 when something grew more than its tolerance, or a session failed.
"""

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
from anthropic import AsyncAnthropic

import harness
from parts import samples
from parts.plane import Plane, running

SETTINGS = "[sessions]\nidle_seconds = 1.0\nmax_sessions = 48\n"
ROUNDS = 60
LEAST_ROUND_SECONDS = 6.0
REST_SECONDS = 2.0
"""After a round; a session that is idle sleeps within one."""
TURN_SECONDS = 60.0
LOOK_SECONDS = 0.2
WARM_UP_SHARE = 0.1

TOLERANCES = {
    "mib": 6.0,
    "descriptors": 6.0,
    "threads": 3.0,
    "tasks": 3.0,
    "processes": 3.0,
    "sandboxes": 2.0,
}
"""What may be gained over the second half: noise of pools and caches that fill, and no more."""

REMEMBERED_SESSIONS = 1024
SESSION_MIB = 0.04
"""The local brain keeps its last sessions and work items in memory, so many of each."""


Sampled = list[tuple[float, dict[str, float]]]


class Users:
    """People who make sessions, use them in different ways, and drop them."""

    def __init__(self, client: AsyncAnthropic, environment_id: str) -> None:
        self._client = client
        self._environment_id = environment_id
        self.done: Counter[str] = Counter()
        self.failed: list[str] = []

    async def one(self, ends: float, dice: random.Random) -> None:
        """Go on until it is time to go."""
        plays = (self._calls, self._side_by_side, self._interrupted, self._asleep)
        while time.monotonic() < ends:
            play = dice.choice(plays)
            name = play.__name__.strip("_")
            try:
                async with asyncio.timeout(TURN_SECONDS):
                    await play()
            except TimeoutError:
                self.failed.append(f"{name}: the turn did not end in {TURN_SECONDS:.0f} s")
            self.done[name] += 1

    async def _calls(self) -> None:
        async with self._session(_bash("seq 1 20000"), _bash("false"), _read("x")) as made:
            await self._turn(made)

    async def _side_by_side(self) -> None:
        calls = [_bash("sleep 0.2; echo $RANDOM > x"), _glob("*"), _glob("**/*"), _glob("y*")]
        async with self._session({"calls": [each["call"] for each in calls]}) as made:
            await self._turn(made)

    async def _interrupted(self) -> None:
        async with self._session(_bash("sleep 300")) as made:
            await self._say(made)
            await asyncio.sleep(1.0)
            await self._send(made, {"type": "user.interrupt"})
            await self._over(made, 1)

    async def _asleep(self) -> None:
        async with self._session(_bash("echo x >> log; cat log")) as made:
            await self._turn(made)
            await asyncio.sleep(2.5)
            await self._turn(made, 2)

    @contextlib.asynccontextmanager
    async def _session(self, *steps: dict[str, Any]) -> AsyncIterator[str]:
        beta = self._client.beta
        agent = await beta.agents.create(
            name="soak",
            model="scripted",
            system=json.dumps({"turns": [{"steps": list(steps)}]}),
            tools=[{"type": "agent_toolset_20260401"}],
        )
        made = await beta.sessions.create(agent=agent.id, environment_id=self._environment_id)
        try:
            yield made.id
        finally:
            await beta.sessions.archive(made.id)

    async def _turn(self, session_id: str, turns: int = 1) -> None:
        await self._say(session_id)
        await self._over(session_id, turns)

    async def _say(self, session_id: str) -> None:
        text = {"type": "text", "text": "go"}
        await self._send(session_id, {"type": "user.message", "content": [text]})

    async def _send(self, session_id: str, event: dict[str, Any]) -> None:
        await self._client.beta.sessions.events.send(session_id, events=[event])

    async def _over(self, session_id: str, turns: int) -> None:
        while True:
            page = await self._client.beta.sessions.events.list(session_id, limit=1000)
            idles = [event for event in page.data if event.type == "session.status_idle"]
            if sum(event.stop_reason.type == "end_turn" for event in idles) >= turns:
                return
            await asyncio.sleep(LOOK_SECONDS)


def _bash(command: str) -> dict[str, Any]:
    return {"call": {"tool": "bash", "input": {"command": command}}}


def _read(path: str) -> dict[str, Any]:
    return {"call": {"tool": "read", "input": {"file_path": path}}}


def _glob(pattern: str) -> dict[str, Any]:
    return {"call": {"tool": "glob", "input": {"pattern": pattern}}}


async def rounds(users: Users, plane: Plane, seconds: float, count: int) -> Sampled:
    """Let users come and go in rounds, and sample after each one but those of the warm-up."""
    found: Sampled = []
    dice = [random.Random(number) for number in range(count)]
    began = time.monotonic()
    headers = {"authorization": f"Bearer {plane.admin_key}"}
    async with httpx2.AsyncClient(base_url=plane.api, headers=headers, trust_env=False) as http:
        while (at := time.monotonic() - began) < seconds:
            ends = time.monotonic() + max(LEAST_ROUND_SECONDS, seconds / ROUNDS)
            async with asyncio.TaskGroup() as group:
                for one in dice:
                    group.create_task(users.one(ends, one))
            await asyncio.sleep(REST_SECONDS)
            if at >= seconds * WARM_UP_SHARE:
                sample = await asyncio.to_thread(samples.sample, plane.pid)
                sample["tasks"] = _tasks((await http.get("/metrics")).text)
                found.append((at, sample))
    return found


def _tasks(metrics: str) -> float:
    line = next(line for line in metrics.splitlines() if line.startswith("handiwork_tasks "))
    return float(line.split()[1])


async def soak(plane: Plane, minutes: float, count: int) -> tuple[Users, list[samples.Verdict]]:
    """Let users come and go for so long; judge what was sampled after the warm-up."""
    async with AsyncAnthropic(base_url=plane.brain, api_key=plane.brain_key) as client:
        users = Users(client, plane.environment_id)
        found = await rounds(users, plane, minutes * 60, count)
    return users, samples.judge(found, TOLERANCES | _filling(users.done.total()))


def _filling(sessions: int) -> dict[str, float]:
    """Return what the brain's memory may gain in a run too short to fill what it remembers."""
    half = sessions / 2
    new = min(half, max(0.0, REMEMBERED_SESSIONS - half))
    return {"local brain mib": TOLERANCES["mib"] + new * SESSION_MIB}


def show(users: Users, verdicts: list[samples.Verdict]) -> str:
    """Return the outcome for a person."""
    lines = [f"soak: {users.done.total()} sessions {dict(users.done)}", *users.failed[:20]]
    for one in verdicts:
        outcome = "flat" if one.flat else "GROWS"
        lines.append(
            f"  {one.name:28} {one.first:9.1f} to {one.last:9.1f}"
            f"  gained {one.growth:7.2f} of {one.tolerance:.0f}  {outcome}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/soak.py")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--users", type=int, default=6)
    parser.add_argument("--quick", action="store_true", help="two thirds of a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    minutes = 0.6 if options.quick else options.minutes
    with (
        tempfile.TemporaryDirectory(prefix="hw-soak-") as name,
        running(Path(name), settings=SETTINGS) as plane,
    ):
        users, verdicts = asyncio.run(soak(plane, minutes, options.users))
    bad = [one.name for one in verdicts if not one.flat]
    if options.json:
        bench = harness.Bench("soak", quick=options.quick)
        for one in verdicts:
            more = {"tolerance": one.tolerance, "flat": one.flat}
            bench.record(f"{one.name} gained", [one.growth], "", **more)
        report = bench.report() | {"minutes": minutes, "sessions": dict(users.done)}
        print(json.dumps(report | {"failed": users.failed}, indent=2))
    else:
        print(show(users, verdicts))
    return 1 if bad or users.failed else 0


if __name__ == "__main__":
    sys.exit(main())
