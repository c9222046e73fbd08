"""A run of the chaos: sessions through the proxy, an engine that is killed, and what came of it."""

import asyncio
import contextlib
import json
import multiprocessing
import sqlite3
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic

from brain_process import TOOLSET, BrainProcess
from chaos import engine_child
from chaos.plan import Plan, Story, story
from chaos.proxy import Chaos
from uppers import written

TOGETHER = 24
"""So many sessions are under way at once."""
START_SECONDS = 30.0
LOOK_SECONDS = 0.5
MAX_DEATHS = 2000

COUNT = {
    "type": "custom",
    "name": "count",
    "description": "counts its runs",
    "input_schema": {
        "type": "object",
        "properties": {
            "key": {"type": "string"},
            "seconds": {"type": "number"},
            "die_at": {"type": "string"},
        },
        "required": ["key"],
    },
}
ASKING = {
    **TOOLSET,
    "configs": [{"name": "bash", "permission_policy": {"type": "always_ask"}}],
}


@dataclass
class Session:
    """One session of the run, and what the brain has of it at the end."""

    story: Story
    id: str
    events: list[Any] = field(default_factory=list)
    ended: bool = False


class Forked:
    """An engine's process, forked from one that has all modules already: a death costs no imports."""

    def __init__(self, told: dict[str, str], log: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["handiwork.app", "handiwork.brains.anthropic"])
        held, self.hold = context.Pipe(duplex=False)
        with held:
            self._process = context.Process(
                target=engine_child.main, args=(told, str(log), held), daemon=True
            )
            self._process.start()
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self._process.sentinel, self._end)

    def _end(self) -> None:
        self._loop.remove_reader(self._process.sentinel)
        self._process.join()
        self._ended.set_result(self._process.exitcode)
        self._process.close()
        self.hold.close()

    @property
    def returncode(self) -> int | None:
        return self._ended.result() if self._ended.done() else None

    def kill(self) -> None:
        if not self._ended.done():
            self._process.kill()

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)


class Engine:
    """The engine's process, started again whenever it dies; `stored` is what it had in its ledger."""

    def __init__(self, place: Path, reach: dict[str, str], sabotage: str) -> None:
        self._told = {
            "place": str(place),
            "data": str(place / "data"),
            "brain": reach,
            "sabotage": sabotage,
        }
        self.log = place / "engine.log"
        self.stored: dict[str, str] = {}
        self.deaths = 0
        self.faults: list[str] = []
        self._process: Any = None
        self._dead = asyncio.Condition()
        self._stopping = False

    async def run(self) -> None:
        """Keep it running until it is told to stop."""
        while not self._stopping:
            self._process = process = await self._started()
            if self._stopping:
                self._ask_to_end(process)
            code = await process.wait()
            self.stored |= await asyncio.to_thread(self._ledger)
            self.deaths += 1
            if code != -9 and not self._stopping:
                self.faults.append(f"the engine ended by itself with {code}: see {self.log}")
                return
            if self.deaths > MAX_DEATHS:
                self.faults.append("the engine died too often")
                return
            async with self._dead:
                self._dead.notify_all()

    async def kill(self) -> None:
        """End it as a crash does; when this returns it is dead."""
        async with self._dead:
            process = self._process
            if process is not None and process.returncode is None:
                process.kill()
                await asyncio.wait_for(self._dead.wait(), START_SECONDS)

    async def stop(self) -> None:
        """Let it end by itself."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            self._ask_to_end(self._process)
            await asyncio.wait_for(self._process.wait(), START_SECONDS)

    async def _started(self) -> Any:
        return Forked(self._told, self.log)

    def _ask_to_end(self, process: Any) -> None:
        process.hold.close()

    def _ledger(self) -> dict[str, str]:
        """Return the results that are on disk."""
        database = Path(self._told["data"]) / "handiwork.db"
        if not database.exists():
            return {}
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
            try:
                rows = opened.execute(
                    "select tool_use_id, result from tool_calls"
                    " where state in ('stored', 'posted') and result is not null"
                ).fetchall()
            except sqlite3.OperationalError:
                return {}
        return {call: json.loads(result)["content"][0]["text"] for call, result in rows}


class ControlPlane(Engine):
    """The same with a whole `handiwork up`, as an operator starts it."""

    async def _started(self) -> asyncio.subprocess.Process:
        place, reach = Path(self._told["place"]), self._told["brain"]
        key_file, config = place / "environment-key", place / "handiwork.toml"
        key_file.touch(mode=0o600)
        key_file.write_text(reach["environment_key"])
        config.write_text(
            "[api]\nport = 0\n[local_brain]\nenabled = false\n"
            "[sessions]\nidle_seconds = 1.0\nlease_seconds = 3\n[[environments]]\n"
            f'id = "{reach["environment_id"]}"\nbase_url = "{reach["base_url"]}"\n'
            f'key_file = "{key_file}"\n'
        )
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "handiwork", "--config", config, "up"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    "PATH": "/usr/sbin:/usr/bin:/bin",
                    "HOME": str(place),
                    "HANDIWORK_DATA_DIR": self._told["data"],
                },
            )

    def _ask_to_end(self, process: asyncio.subprocess.Process) -> None:
        process.terminate()


@dataclass
class Run:
    """A finished run."""

    sessions: list[Session]
    runs: list[list[str]]
    lines: Counter[str]
    stored: dict[str, str]
    deaths: int
    faults: list[str]
    done: Counter[str]
    seconds: float


async def play(
    plan: Plan,
    count: int,
    place: Path,
    *,
    sabotage: str = "",
    session_seconds: float = 600.0,
    engines: type[Engine] = Engine,
) -> Run:
    """Let so many sessions happen on a brain and an engine of their own."""
    began = time.monotonic()
    (place / "data").mkdir(parents=True)
    with BrainProcess.start(place / "brain.db") as brain:
        async with contextlib.AsyncExitStack() as stack:
            chaos = Chaos(plan, brain.port, kill=lambda: engine.kill())
            await stack.enter_async_context(chaos.serving())
            reach = {
                "base_url": chaos.url,
                "environment_id": brain.environment_id,
                "environment_key": brain.environment_key,
            }
            engine = engines(place, reach, sabotage)
            user = await stack.enter_async_context(
                anthropic.AsyncAnthropic(
                    api_key=brain.api_key, base_url=brain.base_url, max_retries=5
                )
            )
            keeping = asyncio.ensure_future(engine.run())
            try:
                sessions = await _sessions(
                    plan, count, chaos, user, brain, session_seconds, keeping
                )
            finally:
                await engine.stop()
                await keeping
        return Run(
            sessions=sessions,
            runs=_runs(place),
            lines=_lines(place),
            stored=engine.stored,
            deaths=engine.deaths - 1,
            faults=engine.faults,
            done=chaos.done,
            seconds=time.monotonic() - began,
        )


async def _sessions(
    plan: Plan,
    count: int,
    chaos: Chaos,
    user: anthropic.AsyncAnthropic,
    brain: BrainProcess,
    seconds: float,
    keeping: asyncio.Future[None],
) -> list[Session]:
    together = asyncio.Semaphore(TOGETHER)

    async def one(index: int) -> Session:
        async with together:
            return await _session(story(plan, index), chaos, user, brain, seconds)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(index)) for index in range(count)]
        await asyncio.wait([keeping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        if keeping.done():
            for task in tasks:
                task.cancel()
    return [task.result() for task in tasks if not task.cancelled()]


async def _session(
    told: Story,
    chaos: Chaos,
    user: anthropic.AsyncAnthropic,
    brain: BrainProcess,
    seconds: float,
) -> Session:
    agent = await user.beta.agents.create(
        name=told.name,
        model="scripted",
        system=json.dumps({"turns": _turns(told)}),
        tools=[ASKING if told.asks else TOOLSET, COUNT],
    )
    made = await user.beta.sessions.create(agent=agent.id, environment_id=brain.environment_id)
    session = Session(told, made.id)
    chaos.names[made.id] = told.name
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await User(session, user).play()
            session.ended = True
    session.events = [event async for event in user.beta.sessions.events.list(made.id, limit=1000)]
    return session


def _turns(told: Story) -> list[dict[str, Any]]:
    turns = [{"steps": [*told.steps, {"say": "done"}]}]
    if told.kind == "interrupt":
        key = f"{told.name}.after"
        turns.append({"steps": [{"call": {"tool": "count", "input": {"key": key}}}]})
    return turns


class User:
    """The user's side: messages, verdicts, an interrupt."""

    def __init__(self, session: Session, client: anthropic.AsyncAnthropic) -> None:
        self._session = session
        self._events = client.beta.sessions.events
        self._judged: set[str] = set()
        self._interrupted = False

    async def play(self) -> None:
        told = self._session.story
        turns = told.turns + (told.kind == "interrupt")
        for turn in range(1, turns + 1):
            await self._send({"type": "user.message", "content": [{"type": "text", "text": "go"}]})
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                if await self._over(turn):
                    break

    async def _over(self, turn: int) -> bool:
        page = await self._events.list(self._session.id, limit=1000)
        told = self._session.story
        await self._judge(page.data)
        slow = any(
            event.type == "agent.custom_tool_use" and event.input["key"] == f"{told.name}.slow"
            for event in page.data
        )
        if slow and not self._interrupted:
            self._interrupted = True
            await asyncio.sleep(0.5)
            await self._send({"type": "user.interrupt"})
        idles = [event for event in page.data if event.type == "session.status_idle"]
        return sum(event.stop_reason.type == "end_turn" for event in idles) >= turn

    async def _judge(self, events: list[Any]) -> None:
        """Decide on every call that waits for it."""
        for event in events:
            asked = event.type == "agent.tool_use" and event.evaluated_permission == "ask"
            if not asked or event.id in self._judged:
                continue
            self._judged.add(event.id)
            verdict = "allow" if self._session.story.allow else "deny"
            await self._send(
                {"type": "user.tool_confirmation", "tool_use_id": event.id, "result": verdict}
            )

    async def _send(self, event: dict[str, Any]) -> None:
        await self._events.send(self._session.id, events=[event])


def _runs(place: Path) -> list[list[str]]:
    """Return what the counting tool wrote."""
    file = place / engine_child.RUNS
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def _lines(place: Path) -> Counter[str]:
    """Return how often each command left its line in its sandbox."""
    counted: Counter[str] = Counter()
    for text in written(place / "data", "workspace/runs"):
        counted.update(line.split()[0] for line in text.splitlines())
    return counted
