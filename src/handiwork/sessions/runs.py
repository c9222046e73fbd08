"""Runs: a task becomes a session, is followed to its end, and is written down.

The brain has the events, so they are read from there: whoever follows late, or again after a
restart of ours, sees the whole. A run goes on without its caller; one that was under way when we
stopped is followed again at the next start, or told to be lost.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec

from handiwork.model.errors import (
    ConfigError,
    ConflictError,
    HandiworkError,
    NotFoundError,
)
from handiwork.model.run import Run, RunEvent, RunState, run_id_of
from handiwork.model.sandbox import TIERS
from handiwork.model.wire import OutputFile, RunBody
from handiwork.observe import log
from handiwork.store.protocol import Store

if TYPE_CHECKING:
    from handiwork.brains.conversation import Conversation

FAULT = "a fault of ours; the control plane's log has the cause"
MAX_RUNS = 64
"""Followed at once; each holds one stream of the brain."""
MAX_RESUMED = 1000
"""Of the newest runs, those looked at after a restart for one that was under way."""
MAX_MESSAGE_CHARS = 64 * 1024
GRACE_SECONDS = 10.0
"""What an interrupted turn gets to end before the run ends without it."""
OPEN_TURN = "requires_action"
ENDS = frozenset({"session.status_terminated", "session.deleted"})
SYSTEM = (
    "You are an agent with a Linux sandbox of your own. Do the task with your tools, check what you"
    " did, and leave files that the user should get in /workspace/outputs. End with a short answer."
)
"""What an agent made for a run is told when the caller gives no words of their own."""

Files = Callable[[str], Awaitable[Sequence[OutputFile]]]
"""Returns what the agent of a session left in its outputs."""


class Turn:
    """What the events of one task come to."""

    def __init__(self) -> None:
        self._begun = False
        self.message = ""
        self.error = ""
        self.stop_reason = ""

    def take(self, event: RunEvent) -> bool:
        """Take the next event; True when the turn is over."""
        match event.kind:
            case "user.message":
                self._begun = True
            case "agent.message":
                self.message = event.text[:MAX_MESSAGE_CHARS]
            case "session.error":
                self.error = event.text
            case "session.status_idle" if self._begun and event.stop_reason not in ("", OPEN_TURN):
                self.stop_reason = event.stop_reason
                return True
            case kind if kind in ENDS:
                self.stop_reason = kind
                return True
        return False


class _Live:
    """A run that is being followed."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.asked: RunState | None = None
        self.limit: asyncio.Timeout | None = None


class Runs:
    """All runs of this process, at the local brain. Use it as an async context.

    `talk` is None where the local brain is not enabled: then nothing can be started.
    """

    def __init__(
        self,
        *,
        store: Store,
        talk: "Conversation | None",
        environment_id: str,
        files: Files,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._talk = talk
        self._environment_id = environment_id
        self._files = files
        self._clock = clock
        self._live: dict[str, _Live] = {}
        self._agents: dict[str, str] = {}
        self._making = asyncio.Lock()
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = log.get("runs")

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        for run in await self._store.runs.list(limit=MAX_RESUMED):
            if run.state is RunState.RUNNING:
                await self._resume(run)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    async def start(self, body: RunBody) -> Run:
        """Start a session, write the run down, say the task.

        The run stands in the store before the brain hears the task, so that whoever claims the
        session finds tier and policy. ConfigError, NotFoundError: nothing was started.
        """
        talk = self._conversation()
        await self._check(body)
        if len(self._live) >= MAX_RUNS:
            raise ConflictError(f"{MAX_RUNS} runs are under way; try again when one has ended")
        agent_id = body.agent or await self._agent_for(talk, body.model, body.system or SYSTEM)
        session_id = await talk.make_session(
            agent_id, self._environment_id, title=body.task[:60].strip()
        )
        now = self._clock()
        run = Run(
            id=run_id_of(session_id),
            session_id=session_id,
            environment_id=self._environment_id,
            agent_id=agent_id,
            model=body.model,
            tier=body.tier,
            policy=body.policy,
            task=body.task,
            timeout_seconds=body.timeout_seconds,
            created_at=now,
            updated_at=now,
        )
        await self._store.runs.save(run)
        try:
            await talk.say(session_id, body.task)
        except HandiworkError as error:
            await self._close(run, Turn(), RunState.FAILED, str(error))
            raise
        self._follow(run)
        return run

    async def cancel(self, run_id: str) -> Run:
        """Interrupt a run and wait for its end; ConflictError when it is over already."""
        run, live = await self._store.runs.get(run_id), self._live.get(run_id)
        if live is None:
            raise ConflictError(f"the run {run_id} is {run.state.value} already")
        if live.asked is None:
            live.asked = RunState.CANCELLED
            if live.limit is not None:
                live.limit.reschedule(asyncio.get_running_loop().time() + GRACE_SECONDS)
            await self._interrupt(run)
        return await self.wait(run_id, 2 * GRACE_SECONDS)

    async def wait(self, run_id: str, seconds: float) -> Run:
        """Return the run when it has ended, or as it stands after so many seconds."""
        live = self._live.get(run_id)
        if live is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(live.done.wait(), seconds)
        return await self._store.runs.get(run_id)

    async def events(self, run_id: str, *, after: str = "") -> AsyncGenerator[RunEvent, None]:
        """Yield the events of the run's session, those after an id, until its turn is over.

        Of a run that is over the events end where the brain's record of them ends. Close it.
        """
        run = await self._store.runs.get(run_id)
        talk, turn, skipping = self._conversation(), Turn(), bool(after)
        live = self._live.get(run_id)
        source = talk.events(run.session_id) if live else talk.history(run.session_id)
        async with contextlib.aclosing(source) as events:
            async for event in events:
                over = turn.take(event)
                if not skipping:
                    yield event
                skipping = skipping and event.id != after
                if over:
                    return

    def _conversation(self) -> "Conversation":
        if self._talk is None:
            raise ConfigError(
                "runs need the local brain; set local_brain.enabled = true, or give the task to"
                " another brain with `handiwork run --environment ID --key-file FILE`"
            )
        return self._talk

    async def _check(self, body: RunBody) -> None:
        if bool(body.agent) == bool(body.model):
            raise ConfigError("name an agent or a model, and not both")
        if body.environment not in ("", self._environment_id):
            raise ConfigError(
                f"environment: {body.environment[:80]!r} is of a brain whose API key is not ours to"
                " hold; use `handiwork run --environment ID --key-file FILE`"
            )
        if body.agent and body.system:
            raise ConfigError("system: an agent has words of its own; name a model instead")
        if body.tier and body.tier not in TIERS:
            raise ConfigError(f"tier: {body.tier[:80]!r} is no tier; use one of {', '.join(TIERS)}")
        if body.policy:
            try:
                await self._store.policies.get(body.policy)
            except NotFoundError:
                raise ConfigError(
                    f"policy: there is no policy {body.policy[:80]!r}; apply it first"
                ) from None

    async def _agent_for(self, talk: "Conversation", model: str, system: str) -> str:
        """Return the agent of this model and these words, made where it is missing."""
        mark = hashlib.sha256(f"{model}\n{system}".encode()).hexdigest()[:32]
        async with self._making:
            if mark not in self._agents:
                if len(self._agents) >= 1000:
                    self._agents.clear()
                found = await talk.find_agent(mark)
                self._agents[mark] = found or await talk.make_agent(
                    f"run with {model}"[:200], model=model, system=system, mark=mark
                )
            return self._agents[mark]

    async def _resume(self, run: Run) -> None:
        if self._talk is None or run.environment_id != self._environment_id:
            await self._close(
                run, Turn(), RunState.LOST, "its brain is not served here since a restart"
            )
        elif len(self._live) >= MAX_RUNS:
            await self._close(run, Turn(), RunState.LOST, "too many runs to follow after a restart")
        else:
            self._follow(run)

    def _follow(self, run: Run) -> None:
        live = self._live[run.id] = _Live()
        task = self._group.create_task(self._to_end(run, live), name=run.id)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _to_end(self, run: Run, live: _Live) -> None:
        try:
            turn, state, reason = await self._outcome(run, live)
            await self._close(run, turn, state, reason)
        except HandiworkError as error:
            self._log.error("run not written down", run=run.id, error=str(error))
        except Exception:  # noqa: BLE001 - a fault in following one run must not end the others
            self._log.exception("run not followed", run=run.id)
            await self._close(run, Turn(), RunState.LOST, FAULT)
        finally:
            del self._live[run.id]
            live.done.set()

    async def _outcome(self, run: Run, live: _Live) -> tuple[Turn, RunState, str]:
        turn = Turn()
        spent = (self._clock() - run.created_at).total_seconds()
        try:
            async with asyncio.timeout(max(0.0, run.timeout_seconds - spent)) as live.limit:
                await self._watch(run, turn)
        except TimeoutError:
            if live.asked is None:
                live.asked = RunState.TIMED_OUT
                turn = await self._interrupted(run)
        except NotFoundError as error:
            return turn, RunState.LOST, str(error)
        except HandiworkError as error:
            return turn, RunState.FAILED, str(error)
        if live.asked is RunState.TIMED_OUT:
            return turn, live.asked, f"it took more than {run.timeout_seconds:g} s"
        if live.asked is not None:
            return turn, live.asked, "it was cancelled"
        return turn, RunState.ENDED, turn.error

    async def _interrupted(self, run: Run) -> Turn:
        """Interrupt the turn and return what it came to; a brain that is away is not waited for."""
        turn = Turn()
        await self._interrupt(run)
        with contextlib.suppress(TimeoutError, HandiworkError):
            async with asyncio.timeout(GRACE_SECONDS):
                await self._watch(run, turn)
        return turn

    async def _interrupt(self, run: Run) -> None:
        try:
            async with asyncio.timeout(GRACE_SECONDS):
                await self._conversation().interrupt(run.session_id)
        except (HandiworkError, TimeoutError) as error:
            self._log.warning("run not interrupted", run=run.id, reason=str(error))

    async def _watch(self, run: Run, turn: Turn) -> None:
        async with contextlib.aclosing(self._conversation().events(run.session_id)) as events:
            async for event in events:
                if turn.take(event):
                    return

    async def _close(self, run: Run, turn: Turn, state: RunState, reason: str) -> None:
        """Write down how the run ended; what cannot be asked for at the end is told as missing."""
        now, missing = self._clock(), [reason] if reason else []
        usage, cost, files = run.usage, run.list_cost, run.files
        try:
            if self._talk is not None and state is not RunState.LOST:
                async with asyncio.timeout(GRACE_SECONDS):
                    usage, cost = await self._talk.usage(run.session_id)
        except (HandiworkError, TimeoutError) as error:
            missing.append(f"its usage is not known: {error}")
        try:
            async with asyncio.timeout(GRACE_SECONDS):
                files = tuple(await self._files(run.session_id))
        except NotFoundError:
            files = ()  # it was never served here
        except (HandiworkError, TimeoutError) as error:
            missing.append(f"its files are not known: {error}")
        await self._store.runs.save(
            msgspec.structs.replace(
                run,
                state=state,
                reason="; ".join(missing)[:2000],
                stop_reason=turn.stop_reason,
                message=turn.message,
                files=files,
                usage=usage,
                list_cost=cost,
                duration_seconds=round((now - run.created_at).total_seconds(), 3),
                updated_at=now,
            )
        )
