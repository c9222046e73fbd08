"""Tool calls and claims through whole sessions: ours beside the SDK's own worker, on one brain.

The brain is our local one, with an environment for each. What is timed stands in its own record:
from the moment that it emitted a call to the moment that its result was posted.
"""

import asyncio
import contextlib
import http.client
import json
import os
import random
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from anthropic import AsyncAnthropic

from handiwork import process
from handiwork.config import ProcessSettings
from harness import Bench
from parts import started

HERE = Path(__file__).parent
CALLS = 25
SERVE_SECONDS = 30.0
TURN_SECONDS = 60.0
LOOK_SECONDS = 0.2
BETA = "managed-agents-2026-04-01"
WAIT = {
    "type": "custom",
    "name": "wait",
    "description": "sleeps",
    "input_schema": {
        "type": "object",
        "properties": {"seconds": {"type": "string"}},
        "required": ["seconds"],
    },
}


@dataclass(frozen=True)
class Environment:
    """One queue of the brain, and the key of who serves it."""

    id: str
    key: str


@dataclass(frozen=True)
class Brain:
    """The local brain that runs."""

    url: str
    api_key: str
    ours: Environment
    theirs: Environment
    polled: Environment
    many: Environment
    five: tuple[Environment, ...]


@contextmanager
def memory_directory() -> Iterator[Path]:
    """Yield a directory for the brain's file that needs no disk, where there is one.

    Both who serve wait for the brain's commits, which are none of theirs. Our own ledger stays on
    the disk, as users have it.
    """
    place = Path("/dev/shm")
    name = tempfile.mkdtemp(prefix="hw-brain-", dir=place if os.access(place, os.W_OK) else None)
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name)


@contextmanager
def brain(directory: Path) -> Iterator[Brain]:
    """Run a local brain with an environment for each who serves."""
    environments = [
        Environment(f"env_bench{number}", secrets.token_urlsafe(32)) for number in range(1, 10)
    ]
    home = directory / "brain"
    home.mkdir(mode=0o700)
    command = ["-m", "handiwork.brains.local"]
    seen = str(home)
    if process.is_root():
        user = ProcessSettings().brain_id
        os.chown(home, user, user)
        command += ["--user", str(user), "--home", seen]
        seen = process.HOME
    with socket.create_server(("127.0.0.1", 0)) as listening:
        api_key = secrets.token_urlsafe(32)
        bootstrap = {
            "database": f"{seen}/brain.db",
            "listen_fd": listening.fileno(),
            "api_key": api_key,
            "environments": [
                {"id": each.id, "name": each.id, "key": each.key} for each in environments
            ],
        }
        port = listening.getsockname()[1]
        given = json.dumps(bootstrap) + "\n"
        with started.python(*command, given=given, keep=[listening.fileno()]):
            alone, five = environments[:4], tuple(environments[4:])
            yield Brain(f"http://127.0.0.1:{port}", api_key, *alone, five)


@contextmanager
def control_plane(
    directory: Path,
    served: Brain,
    *,
    environments: Sequence[Environment] = (),
    program: Sequence[str | Path] = ("-m", "handiwork"),
    settings: str = "",
) -> Iterator[int]:
    """Run `handiwork up` for environments of the brain (ours); yield its process id.

    Without `settings` (more lines of the configuration) it has those that a user gets.
    """
    config = directory / "handiwork.toml"
    config.write_text(
        f"{settings}[api]\nport = 0\n[local_brain]\nenabled = false\n"
        + "".join(_served(served, each, directory) for each in environments or [served.ours])
    )
    data = directory / "data"
    told = directory / "control-plane.log"
    with told.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, *program, "--config", config, "up"],
            env={"PATH": os.environ["PATH"], "HOME": str(directory), "HANDIWORK_DATA_DIR": data},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        limit = time.monotonic() + SERVE_SECONDS
        while not (data / "addresses.json").exists():
            if child.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(f"handiwork up did not start:\n{told.read_text()[-3000:]}")
            time.sleep(0.05)
        yield child.pid
    finally:
        child.terminate()
        child.wait(SERVE_SECONDS)


def _served(served: Brain, environment: Environment, directory: Path) -> str:
    """Write an environment's key down; return the lines of the configuration that name it."""
    key_file = directory / f"{environment.id}.key"
    key_file.write_text(environment.key)
    key_file.chmod(0o600)
    return (
        f'[[environments]]\nid = "{environment.id}"\nbase_url = "{served.url}"\n'
        f'key_file = "{key_file}"\n'
    )


async def opened(client: AsyncAnthropic, environment: Environment, *steps: dict):
    """Return a session of a scripted agent that plays these steps at every message."""
    agent = await client.beta.agents.create(
        name="bench",
        model="scripted",
        system=json.dumps({"turns": [{"steps": list(steps)}]}),
        tools=[{"type": "agent_toolset_20260401"}, WAIT],
    )
    return await client.beta.sessions.create(agent=agent.id, environment_id=environment.id)


@asynccontextmanager
async def session(client: AsyncAnthropic, environment: Environment, *steps: dict) -> AsyncIterator:
    """Yield such a session, and archive it at the end."""
    made = await opened(client, environment, *steps)
    try:
        yield made
    finally:
        with contextlib.suppress(Exception):
            await client.beta.sessions.archive(made.id)


async def say(client: AsyncAnthropic, session_id: str) -> None:
    """Send the message that starts a turn."""
    message = {"type": "user.message", "content": [{"type": "text", "text": "go"}]}
    await client.beta.sessions.events.send(session_id, events=[message])


async def turn(client: AsyncAnthropic, session_id: str) -> list:
    """Say something and return the events of the turn, once it is over.

    The brain is looked at seldom, so that looking costs the turn little.
    """
    before = len(await events(client, session_id))
    await say(client, session_id)
    async with asyncio.timeout(TURN_SECONDS):
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            said = (await events(client, session_id))[before:]
            if any(is_over(event) for event in said):
                return said


async def until(holds: Callable[[], bool | Awaitable[bool]], pause_seconds: float) -> None:
    """Look until it holds; TimeoutError when it does not in time."""
    async with asyncio.timeout(TURN_SECONDS):
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(pause_seconds)


def is_over(event) -> bool:
    """Say whether a turn ended with it; an idle session that waits for a result goes on."""
    return event.type == "session.status_idle" and event.stop_reason.type != "requires_action"


async def events(client: AsyncAnthropic, session_id: str) -> list:
    return [event async for event in client.beta.sessions.events.list(session_id, limit=1000)]


def call_seconds(said: list) -> list[float]:
    """Return how long each tool call of a turn took, from emitted to posted."""
    emitted = {event.id: event.processed_at for event in said if event.type == "agent.tool_use"}
    return [
        (event.processed_at - emitted[event.tool_use_id]).total_seconds()
        for event in said
        if event.type == "user.tool_result"
    ]


def post_seconds(served: Brain, session_id: str, count: int) -> list[float]:
    """Return how long the brain takes to answer a small POST on a warm connection."""
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=TURN_SECONDS)
    headers = {"x-api-key": served.api_key, "anthropic-beta": BETA}
    headers["content-type"] = "application/json"
    taken = []
    for _ in range(count):
        before = time.perf_counter()
        connection.request("POST", f"/v1/sessions/{session_id}", b'{"metadata":{"a":"b"}}', headers)
        answered = connection.getresponse()
        answered.read()
        taken.append(time.perf_counter() - before)
        if answered.status != 200:
            raise RuntimeError(f"the brain answered {answered.status}")
    connection.close()
    return taken


async def measure_calls(bench: Bench, client: AsyncAnthropic, served: Brain) -> None:
    """tool_call_ms, tool_call_vs_sdk_ratio: `bash true`, turn by turn."""
    step = {"repeat": {"limit": CALLS, "steps": [call("true")]}}
    async with (
        session(client, served.ours, step) as ours,
        session(client, served.theirs, step) as theirs,
    ):
        taken: dict[str, list[list[float]]] = {ours.id: [], theirs.id: []}
        rounds = bench.times(12, 4)
        for number in range(rounds + 1):
            for each in (ours, theirs) if number % 2 else (theirs, ours):
                seconds = call_seconds(await turn(client, each.id))
                if len(seconds) != CALLS:
                    raise RuntimeError(f"{len(seconds)} of {CALLS} calls were answered")
                if number:
                    taken[each.id].append(seconds)
        post = statistics.median(post_seconds(served, ours.id, 100))
    flat = [seconds for each in taken[ours.id] for seconds in each]
    bench.record("tool_call_ms", flat, "ms", scale=1000, brain_post_ms=round(post * 1000, 3))
    medians = {each: [statistics.median(turn) for turn in turns] for each, turns in taken.items()}
    bench.ratio(
        "tool_call_vs_sdk_ratio",
        [a / b for a, b in zip(medians[ours.id], medians[theirs.id], strict=True)],
        sdk_tool_call_ms=round(statistics.median(medians[theirs.id]) * 1000, 3),
    )


def call(command: str) -> dict:
    return {"call": {"tool": "bash", "input": {"command": command}}}


async def measure_claims(
    bench: Bench, client: AsyncAnthropic, served: Brain, *, beside_sdk: bool = False
) -> None:
    """claim_latency_ms: work queued, until our poll took it; the brain's own record tells."""
    count = bench.times(20, 5)
    taken: dict[str, list[float]] = {"ours": [], "sdk": []}
    async with asyncio.TaskGroup() as group:
        polling = group.create_task(_sdk_poll(served)) if beside_sdk else None
        for _ in range(count):
            taken["ours"].append(await claimed(client, served, served.ours))
            if beside_sdk:
                taken["sdk"].append(await claimed(client, served, served.polled))
        if polling is not None:
            polling.cancel()
    sdk = {"sdk_ms": round(statistics.median(taken["sdk"]) * 1000, 1)} if beside_sdk else {}
    bench.record("claim_latency_ms", taken["ours"], "ms", scale=1000, **sdk)


async def claimed(client: AsyncAnthropic, served: Brain, environment: Environment) -> float:
    """Queue work at a moment of its own, and return how long it waited for a poll."""
    await asyncio.sleep(random.uniform(0.1, 1.1))
    key = environment.key
    async with (
        AsyncAnthropic(base_url=served.url, auth_token=key) as queue,
        session(client, environment, {"say": "done"}) as made,
    ):
        await turn(client, made.id)

        async def taken() -> bool:
            return await claim_seconds(queue, environment, made.id) is not None

        await until(taken, LOOK_SECONDS)
        return await claim_seconds(queue, environment, made.id) or 0.0


async def claim_seconds(
    client: AsyncAnthropic, environment: Environment, session_id: str
) -> float | None:
    """Return how long the session's item waited; None while it does."""
    async for item in client.beta.environments.work.list(environment.id):
        if item.data.id == session_id and item.acknowledged_at:
            queued, taken = (
                datetime.fromisoformat(str(moment))
                for moment in (item.created_at, item.acknowledged_at)
            )
            return (taken - queued).total_seconds()
    return None


async def _sdk_poll(served: Brain) -> None:
    """Poll as the SDK does, and let every item go at once."""
    environment = served.polled
    async with AsyncAnthropic(base_url=served.url, auth_token=environment.key) as client:
        work = client.beta.environments.work
        poller = work.poller(
            environment_id=environment.id, environment_key=environment.key, auto_stop=False
        )
        async for item in poller:
            await work.stop(item.id, environment_id=environment.id, force=True)


@dataclass(frozen=True)
class World:
    """A brain, and who serves it: `handiwork up` and the SDK's worker."""

    served: Brain
    client: AsyncAnthropic
    directory: Path


@asynccontextmanager
async def world(program: Sequence[str | Path] = ("-m", "handiwork")) -> AsyncIterator[World]:
    """Run the brain, and both ends that serve it."""
    async with contextlib.AsyncExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="hw-sessions-"))
        directory = Path(name)
        directory.chmod(0o711)
        served = stack.enter_context(brain(stack.enter_context(memory_directory())))
        stack.enter_context(control_plane(directory, served, program=program))
        folder = directory / "workspace"
        folder.mkdir()
        stack.enter_context(
            started.python(
                HERE / "sdk_environment.py",
                served.url,
                served.theirs.id,
                folder,
                given=served.theirs.key + "\n",
            )
        )
        client = await stack.enter_async_context(
            AsyncAnthropic(base_url=served.url, api_key=served.api_key)
        )
        yield World(served, client, directory)


async def measure(bench: Bench) -> None:
    """Measure calls and claims as the main job has them."""
    async with world() as found:
        await measure_calls(bench, found.client, found.served)
        await measure_claims(bench, found.client, found.served)
