"""The brain over the official SDK: Anthropic's service, its self-hosted server, or our local brain.

Requests go through the SDK's own methods, answers are read leniently from their bytes
(`brains/wire.py`). Which key a call carries and what the SDK's errors mean is in `brains/access.py`.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any
from urllib.parse import quote

import anthropic
import httpx2
import msgspec

from handiwork.brains import wire
from handiwork.brains.access import REQUEST_SECONDS, Access, body_of, told
from handiwork.brains.history import History
from handiwork.brains.holding import Holding, Records
from handiwork.brains.lease import Beat
from handiwork.model.environment import QueueStats
from handiwork.model.errors import (
    BrainRefusedError,
    BrainUnavailableError,
    LeaseLostError,
    NotFoundError,
    UnauthorizedError,
)
from handiwork.model.placeholder import Credential
from handiwork.model.session import (
    BrainEvent,
    BrainReached,
    BrainSession,
    BrainSessionEnded,
    BrainUnreached,
    SessionChanged,
    WorkItem,
)
from handiwork.model.tool import ToolResult
from handiwork.observe import log

POLL_BLOCK_MS = 999
"""The longest that the service lets a poll wait."""

PAGE_EVENTS = 1000
MAX_PAGES = 10_000

_POLL_SECONDS = 5.0
_STREAM_SILENCE_SECONDS = 90.0
_RECONNECT_SECONDS = (0.5, 10.0)
_POST_RETRY_SECONDS = (0.25, 30.0)
_DESCRIBE_TRIES = 8
_ACK_TRIES = 4
_ACK_RETRY_SECONDS = 0.5
_RANDOM = secrets.SystemRandom()
_PRECONDITION_FAILED = 412
_MANAGED = {"anthropic-beta": "managed-agents-2026-04-01"}


class AnthropicBrain:
    """One environment's queue and sessions. `lease_seconds` asks for a lease other than the brain's.

    `records` keep what a restart needs to go on with the leases; None: they end with this process.
    """

    def __init__(
        self,
        *,
        environment_id: str,
        environment_key: str,
        base_url: str,
        lease_seconds: int | None = None,
        records: Records | None = None,
        post_limit_seconds: float = 300.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._environment_id = environment_id
        self._lease_seconds = lease_seconds
        self._post_limit = post_limit_seconds
        self.posts_again: Callable[[], None] = lambda: None
        """Called before each repeated post of a result."""
        self._now = now
        self._worker_id = f"handiwork-{secrets.token_hex(6)}"
        self._access = Access(environment_key=environment_key, base_url=base_url)
        self._log = log.get("brain").bind(environment=environment_id)
        self._holding = Holding(self, records, now)

    @property
    def environment_id(self) -> str:
        """Return the environment whose queue this is."""
        return self._environment_id

    @property
    def access(self) -> Access:
        """Return the way to the brain, for what else is asked of it."""
        return self._access

    async def close(self) -> None:
        """Close the connections."""
        await self._access.close()

    # --- the queue ---

    async def claim(self) -> WorkItem | None:
        """Poll for at most a second; acknowledge what comes."""
        await self._holding.stop_owed()
        with told("poll for work"):
            answer = await self._access.environment.beta.environments.work.with_raw_response.poll(
                self._environment_id,
                block_ms=POLL_BLOCK_MS,
                anthropic_worker_id=self._worker_id,
                timeout=_POLL_SECONDS,
            )
            item = body_of(answer, "poll")
        if item is None:
            return None
        work = wire.read_work(item, self._environment_id)
        if work is None:
            raise BrainUnavailableError("the brain's queue gave a work item that names nothing")
        if work.kind == "session":
            await self._holding.claimed(work)
        if not await self._acknowledge(work):
            return None
        if work.kind == "healthcheck":
            await self._holding.stop(work)
            return None
        return work

    async def _acknowledge(self, work: WorkItem) -> bool:
        """Take the item off the queue; False when the brain refuses that for good.

        An acknowledgement whose answer is lost is repeated: the item would be nobody's for a
        lease. One that was there already, ours or another's, is for the first heartbeat to tell.
        """
        for attempt in range(_ACK_TRIES):
            try:
                with told(f"acknowledge {work.id}"):
                    await self._ack(work)
            except BrainUnavailableError:
                if attempt == _ACK_TRIES - 1:
                    raise
                await asyncio.sleep(_jittered(_ACK_RETRY_SECONDS))
            except (BrainRefusedError, NotFoundError, UnauthorizedError) as error:
                self._log.warning("work item refused", work=work.id, reason=str(error))
                await self._holding.refused(work)
                return False
            else:
                break
        return True

    async def _ack(self, work: WorkItem) -> None:
        with contextlib.suppress(anthropic.ConflictError):
            await self._access.environment.beta.environments.work.with_raw_response.ack(
                work.id, environment_id=self._environment_id
            )

    async def stats(self) -> QueueStats:
        """Ask the brain to count its queue."""
        with told("read the queue's statistics"):
            answer = await self._access.environment.beta.environments.work.with_raw_response.stats(
                self._environment_id, timeout=_POLL_SECONDS
            )
            return wire.read_stats(body_of(answer, "statistics") or {})

    # --- the lease ---

    async def resume(self) -> Sequence[WorkItem]:
        """Return the items whose leases a former run of ours left."""
        return await self._holding.resume(self._environment_id)

    @contextlib.asynccontextmanager
    async def hold(self, work: WorkItem) -> AsyncIterator[None]:
        """Keep the lease while the body runs; the item's own token opens its session."""
        self._access.open(work)
        try:
            async with self._holding.hold(work):
                yield
        finally:
            self._access.shut(work)

    async def beat(self, work: WorkItem, expected: str) -> Beat:
        """Beat once, expecting the brain's last word on it."""
        return await self._access.call(
            work, f"heartbeat of {work.id}", lambda api: self._heartbeat(api, work, expected)
        )

    def lost(self, work: WorkItem) -> None:
        """With the lease goes the session's token: what is not ours any more is not written to."""
        self._access.shut(work)

    async def _heartbeat(
        self, api: anthropic.AsyncAnthropic, work: WorkItem, expected: str
    ) -> Beat:
        try:
            answer = await api.beta.environments.work.with_raw_response.heartbeat(
                work.id,
                environment_id=self._environment_id,
                expected_last_heartbeat=expected,
                desired_ttl_seconds=self._lease_seconds or anthropic.omit,
            )
        except anthropic.APIStatusError as error:
            if error.status_code != _PRECONDITION_FAILED:
                raise
            raise LeaseLostError(f"another heartbeat of {work.id} came first") from None
        try:
            return msgspec.json.decode(answer.http_response.content, type=Beat)
        except msgspec.MsgspecError as error:
            raise BrainUnavailableError(f"the heartbeat's answer is malformed: {error}") from None

    async def end(self, work: WorkItem) -> None:
        """Stop the item for good."""
        await self._access.call(work, f"stop {work.id}", lambda api: self._force_stop(api, work))

    async def _force_stop(self, api: anthropic.AsyncAnthropic, work: WorkItem) -> None:
        with contextlib.suppress(anthropic.ConflictError):
            await api.beta.environments.work.with_raw_response.stop(
                work.id, environment_id=self._environment_id, force=True
            )

    # --- a session ---

    async def describe(self, work: WorkItem) -> BrainSession:
        """Return the session as the brain has it; ask again for a while when it does not answer."""
        pause, longest = _RECONNECT_SECONDS
        for _ in range(_DESCRIBE_TRIES - 1):
            try:
                return await self._described(work)
            except BrainUnavailableError as error:
                self._log.info("not described", session=work.session_id, reason=str(error))
            await asyncio.sleep(_jittered(pause))
            pause = min(pause * 2, longest)
        return await self._described(work)

    async def _described(self, work: WorkItem) -> BrainSession:
        answer = await self._access.call(
            work,
            f"read session {work.session_id}",
            lambda api: api.beta.sessions.with_raw_response.retrieve(work.session_id),
        )
        session = body_of(answer, "session")
        if session is None:
            raise BrainUnavailableError(f"the brain's answer for {work.session_id} is empty")
        return wire.read_session(session)

    async def ended(self, session_id: str) -> str:
        """Say why the session is over for good; empty: it is not.

        A 404 counts only in the API's own words, from a brain that still knows our queue: what
        a gateway or a wrong address answers says nothing about a session.
        """
        what = f"ask about session {session_id}"
        try:
            with told(what):
                answer = await self._retrieved(session_id)
        except NotFoundError:
            raise BrainUnavailableError(f"cannot {what}: what answered is no brain") from None
        if answer is None:
            await self.stats()
            return "the brain deleted it"
        session = wire.read_session(body_of(answer, "session") or {})
        if session.id != session_id:
            raise BrainUnavailableError(f"cannot {what}: the answer is of another session")
        return "the brain ended it" if session.terminated else ""

    async def _retrieved(self, session_id: str) -> Any:
        """Return the raw answer; None when the API says that there is no such session."""
        try:
            return await self._access.environment.beta.sessions.with_raw_response.retrieve(
                session_id, timeout=_POLL_SECONDS
            )
        except anthropic.NotFoundError as error:
            if not wire.says_not_found(error.body):
                raise
            return None

    async def credentials(self, work: WorkItem) -> tuple[Credential, ...]:
        """Return the sealed secrets of the session's vaults.

        Only a brain of ours tells them; elsewhere vaults are for the brain's own connections.
        """
        path = f"/v1/sessions/{quote(work.session_id, safe='')}/credentials"
        try:
            with told(f"read the credentials of {work.session_id}"):
                answer = await self._access.of(work).get(
                    path, cast_to=httpx2.Response, options={"headers": _MANAGED}
                )
        except (NotFoundError, UnauthorizedError, BrainRefusedError) as error:
            self._log.info("no credentials", session=work.session_id, reason=str(error))
            return ()
        try:
            tree = msgspec.json.decode(answer.content, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError):
            raise BrainUnavailableError("the brain's list of credentials is malformed") from None
        return wire.read_credentials(tree)

    async def events(self, work: WorkItem) -> AsyncGenerator[BrainEvent, None]:
        """Follow the session; reconnect with growing pauses when the stream breaks."""
        first, longest = _RECONNECT_SECONDS
        delay, changes = first, _Changes()
        while True:
            api, reached = self._access.of(work), False
            try:
                async with contextlib.aclosing(self._connected(api, work, changes)) as events:
                    async for event in events:
                        reached = True
                        if not isinstance(event, BrainReached):
                            delay = first
                        yield event
                        if isinstance(event, BrainSessionEnded):
                            return
            except BrainUnavailableError as error:
                self._log.info("stream broke", session=work.session_id, reason=str(error))
                # One that broke is opened again at once; only where that fails is the brain away.
                if not reached:
                    yield BrainUnreached(reason=str(error))
            except UnauthorizedError as error:
                if not self._access.drop(work, api, error):
                    raise
            await asyncio.sleep(_jittered(delay))
            delay = min(delay * 2, longest)

    async def _connected(
        self, api: anthropic.AsyncAnthropic, work: WorkItem, changes: "_Changes"
    ) -> AsyncGenerator[BrainEvent, None]:
        """Open the stream, list the whole history, yield what is pending, then what comes."""
        timeout = httpx2.Timeout(REQUEST_SECONDS, read=_STREAM_SILENCE_SECONDS)
        with told(f"follow session {work.session_id}"):
            async with api.beta.sessions.events.with_streaming_response.stream(
                work.session_id, timeout=timeout
            ) as answer:
                history, known = await self._history(api, work)
                yield BrainReached()
                for pending in history.pending():
                    yield pending
                if changes.missed(history.changed):
                    yield SessionChanged(id=history.changed)
                async for frame in anthropic.AsyncStream.raw_events(answer.http_response):
                    if frame.event is None or frame.event == "ping":
                        continue
                    if frame.event == "error":
                        raise BrainUnavailableError("the brain ended the stream with an error")
                    event = _object(frame.data)
                    if wire.event_key(event) in known:
                        continue
                    read = wire.read_event(event, work.session_id)
                    if isinstance(read, SessionChanged):
                        changes.newest = read.id
                    if read is not None:
                        yield read

    async def _history(
        self, api: anthropic.AsyncAnthropic, work: WorkItem
    ) -> tuple[History, set[str]]:
        """Return the whole history so far, and what identifies each of its events."""
        history, known = History(), set[str]()
        page: str | None = None
        for _ in range(MAX_PAGES):
            answer = await api.beta.sessions.events.with_raw_response.list(
                work.session_id, limit=PAGE_EVENTS, order="asc", page=page or anthropic.omit
            )
            tree = body_of(answer, "events") or {}
            for event in wire.objects(tree, "data"):
                known.add(wire.event_key(event))
                read = wire.read_event(event, work.session_id)
                if read is not None:
                    history.add(read)
            page = tree.get("next_page")
            if not isinstance(page, str) or not page:
                return history, known
        raise BrainRefusedError(f"the history of {work.session_id} has over {MAX_PAGES} pages")

    async def post(self, work: WorkItem, result: ToolResult) -> None:
        """Post until it is taken, refused for good, or the limit of time is reached."""
        events: Any = [wire.write_result(result)]
        pause, longest = _POST_RETRY_SECONDS
        deadline = self._now() + self._post_limit
        while True:
            try:
                await self._access.call(
                    work,
                    f"post the result of {result.tool_use_id}",
                    lambda api: api.beta.sessions.events.with_raw_response.send(
                        work.session_id, events=events
                    ),
                )
                return
            except NotFoundError as error:
                raise BrainRefusedError(str(error)) from None
            except UnauthorizedError as error:
                # It says nothing of the result: a key may be good again before the lease is over.
                wait, gone = _jittered(pause), BrainUnavailableError(str(error))
            except BrainUnavailableError as error:
                wait, gone = max(_jittered(pause), error.retry_seconds), error
            if self._now() + wait > deadline:
                raise gone
            self.posts_again()
            await asyncio.sleep(wait)
            pause = min(pause * 2, longest)


class _Changes:
    """The newest change that was told; those before the first connection are in the description."""

    def __init__(self) -> None:
        self.newest: str | None = None

    def missed(self, newest: str) -> bool:
        """Take in what the history ends with; True for a change while the stream was broken."""
        former, self.newest = self.newest, newest
        return former is not None and former != newest


def _object(text: str) -> dict[str, Any]:
    try:
        return wire.read_json(text.encode()) or {}
    except msgspec.MsgspecError as error:
        raise BrainUnavailableError(f"an event of the brain is malformed: {error}") from None


def _jittered(seconds: float) -> float:
    return _RANDOM.uniform(seconds / 2, seconds)
