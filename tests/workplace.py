"""A control plane on which scripted agents do real work, turn by turn, by their own tools.

async with Workplace(directory, config) as place:
    job = await place.begin([turn(call("bash", command="make"))], tier="gvisor")
    assert await job.turn() == ["…"]
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from anthropic import AsyncAnthropic

import control_plane_process
from brain_process import TOOLSET, call
from handiwork import Handiwork
from handiwork.client.sandboxes import Sandbox
from handiwork.model.errors import GuestError
from handiwork.model.sandbox import SandboxState

LONG_MS = 1_800_000
START_SECONDS, STOP_SECONDS, TURN_SECONDS = 180.0, 120.0, 60.0
STOP_UNLESS = {"then": [{"end": True}]}
WITHOUT_ROOT = ("unshare", "--user", "--map-root-user")
"""Becomes one who has no more rights than an ordinary user, and may still read what root may."""

Steps = list[dict[str, Any]]


def turn(*calls: Steps) -> dict[str, Any]:
    """Return a turn that makes the calls in order, and ends at one that does not go as it should."""
    return {"steps": [step for one in calls for step in one]}


def bash(command: str, *, fails: bool = False) -> Steps:
    """Return a command that has half an hour, and is to succeed, or to fail."""
    return _checked(call("bash", command=command, timeout_ms=LONG_MS), fails=fails)


def use(tool: str, **given: Any) -> Steps:
    """Return a call of another tool that is to succeed."""
    return _checked(call(tool, **given), fails=False)


def write(files: dict[str, str]) -> Steps:
    """Return calls that write files."""
    return [
        step for path, text in files.items() for step in use("write", file_path=path, content=text)
    ]


def _checked(step: dict[str, Any], *, fails: bool) -> Steps:
    return [step, {"if": {"is_error": not fails}, **STOP_UNLESS}]


class Workplace:
    """A control plane of the test's own, that may be killed and started again on what it left."""

    def __init__(self, directory: Path, config: str, *, through: tuple[str, ...] = ()) -> None:
        self._directory = directory
        self._config = config
        self._through = through
        self.plane = self._started()
        self.hands = Handiwork(socket=self.plane.socket)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.hands.close()
        self.plane.stop(STOP_SECONDS)

    async def begin(self, turns: Sequence[dict[str, Any]], **settings: Any) -> "Job":
        """Return a session whose agent plays these turns; `settings` are the operator's for it."""
        async with self._brain() as brain:
            agent = await brain.beta.agents.create(
                name="work", model="scripted", system=json.dumps({"turns": turns}), tools=[TOOLSET]
            )
            await self.hands.agents.put(agent.id, **settings)
            session = await brain.beta.sessions.create(
                agent=agent.id, environment_id=self.plane.addresses["environment_id"]
            )
        return Job(self, session.id)

    async def kill(self) -> None:
        """End it as a power cut would, and start it again."""
        await self.hands.close()
        self.plane.kill()
        self.plane = self._started()
        self.hands = Handiwork(socket=self.plane.socket)

    async def say(self, session_id: str) -> None:
        """Send the message that begins the next turn."""
        message = {"type": "user.message", "content": [{"type": "text", "text": "go"}]}
        async with self._brain() as brain:
            await brain.beta.sessions.events.send(session_id, events=[message])

    async def events(self, session_id: str) -> list[Any]:
        """Return all that the brain has of a session."""
        async with self._brain() as brain:
            return [event async for event in brain.beta.sessions.events.list(session_id)]

    def _brain(self) -> AsyncAnthropic:
        return AsyncAnthropic(
            api_key=self.plane.brain_key, base_url=self.plane.addresses["local_brain"]
        )

    def _started(self) -> control_plane_process.ControlPlane:
        return control_plane_process.start(
            self._directory, config=self._config, seconds=START_SECONDS, through=self._through
        )


class Job:
    """One session and its turns."""

    def __init__(self, place: Workplace, session_id: str) -> None:
        self._place = place
        self.id = session_id
        self._turns = 0
        self._seen = 0

    async def turn(self, seconds: float = TURN_SECONDS) -> list[str]:
        """Play the next turn to its end; the texts of its results, those of failures too."""
        await self.begin_turn()
        return await self.end_turn(seconds)

    async def begin_turn(self) -> None:
        """Say the message of the next turn."""
        self._turns += 1
        await self._place.say(self.id)

    async def end_turn(self, seconds: float = TURN_SECONDS) -> list[str]:
        """Wait until the turn is over; the texts of its results."""
        limit = time.monotonic() + seconds
        while True:
            events = await self._place.events(self.id)
            if sum(map(_ends_turn, events)) >= self._turns:
                break
            assert time.monotonic() < limit, f"the turn did not end; last: {_last(events)}"
            await asyncio.sleep(0.2)
        texts = [_text(event) for event in events if event.type == "user.tool_result"]
        new, self._seen = texts[self._seen :], len(texts)
        return new

    async def until_file(self, path: str, seconds: float = TURN_SECONDS) -> bytes:
        """Wait until a file of the sandbox holds something, as its operator sees it."""
        limit = time.monotonic() + seconds
        while True:
            with contextlib.suppress(GuestError):  # it is not there yet
                if data := await (await self._sandbox()).files.read(path):
                    return data
            assert time.monotonic() < limit, f"{path} did not come"
            await asyncio.sleep(0.2)

    async def until_asleep(self, seconds: float = TURN_SECONDS) -> None:
        """Wait until its sandbox sleeps, which it does when it has been idle."""
        limit = time.monotonic() + seconds
        while (record := (await self._sandbox()).record).state is not SandboxState.SLEEPING:
            assert time.monotonic() < limit, record
            await asyncio.sleep(0.2)
        assert not record.reason, record

    async def _sandbox(self) -> Sandbox:
        session = await self._place.hands.sessions.get(self.id)
        return await self._place.hands.sandboxes.get(session.sandbox_id)


def _ends_turn(event: Any) -> bool:
    return event.type == "session.status_idle" and event.stop_reason.type == "end_turn"


def _text(event: Any) -> str:
    return "".join(block.text for block in event.content or [] if block.type == "text")


def _last(events: Iterable[Any]) -> str:
    return str(list(events)[-1:])[:2000]
