"""Sandboxes that live: each with its own way out, both opened and closed together.

Used by sessions and by the API alike. A sandbox that cannot be made leaves nothing but a record
that says why; one that dies keeps its files and is told as sleeping, with the reason, to its session too.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Self
from weakref import WeakValueDictionary

import msgspec

from handiwork.config import SandboxSettings
from handiwork.egress.protocol import Boundary
from handiwork.model.egress import EgressGrant
from handiwork.model.errors import (
    ConflictError,
    HandiworkError,
    NotFoundError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.model.sandbox import DIED, SandboxExit, SandboxRecord, SandboxSpec, SandboxState
from handiwork.observe import log
from handiwork.sandboxes.protocol import Driver, Sandbox
from handiwork.sessions.credentials import Credentials
from handiwork.sessions.grants import Grants, binding, check_minimum, variables
from handiwork.sessions.held import Change, Held, Live
from handiwork.sessions.idle import Idle
from handiwork.sessions.keeping import Keeping, NoKeeping
from handiwork.sessions.notices import notify
from handiwork.sessions.policies import NOTHING, PolicyResolver
from handiwork.sessions.readiness import keep_ready
from handiwork.sessions.resting import Resting
from handiwork.sessions.sandbox_request import SandboxRequest, recorded
from handiwork.store.protocol import Store
from handiwork.tools.state import ToolState

_RUNNING = (SandboxState.STARTING, SandboxState.RUNNING)
_HAS_FILES = (*_RUNNING, SandboxState.SLEEPING)

STANDS = "its processes stand still until it is wanted"


class LiveSandboxes:
    """All sandboxes of this process. Use it as an async context: leaving puts all to sleep."""

    def __init__(
        self,
        *,
        drivers: Mapping[str, Driver],
        boundary: Boundary,
        store: Store,
        policies: PolicyResolver,
        settings: SandboxSettings,
        clock: Callable[[], datetime],
        keeping: Keeping | None = None,
    ) -> None:
        self._keeping = keeping or NoKeeping()
        self._stopping = False
        self._drivers = drivers
        self._boundary = boundary
        self._store = store
        self._policies = policies
        self._settings = settings
        self._clock = clock
        self.credentials = Credentials(store)
        self._grants = Grants(policies, self.credentials)
        self._live: dict[str, Live] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._starting = 0
        self._expected: set[str] = set()
        self._loans: dict[str, int] = {}
        self._owed: dict[str, str] = {}
        """What is to be done after the last loan: rest, or sleep."""
        self._until: dict[str, float] = {}
        """Until when those stand still that did since their session rested."""
        self._unused: set[str] = set()
        self.renewals: dict[str, Callable[[], Awaitable[None]]] = {}
        """What to do when a sandbox's files were replaced while its session is served."""
        self.to_prepare = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []
        self._group = asyncio.TaskGroup()
        self._resting = Resting(settings, self._group, self.rest_unused)
        self._idle = Idle(settings.woken_seconds, self._is_used, self._may_rest, self.rest_unused)
        self._log = log.get("sandboxes")

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        ready = keep_ready(self._drivers.values(), self._settings, self.to_prepare)
        self._background = [self._group.create_task(one) for one in (ready, self._idle.watch())]
        return self

    async def __aexit__(self, *failure: Any) -> None:
        for task in self._background:
            task.cancel()
        self._stopping = True
        async with asyncio.TaskGroup() as group:
            for sandbox_id in list(self._live):
                group.create_task(self._sleep_at_last(sandbox_id))
        await self._group.__aexit__(*failure)
        for driver in self._drivers.values():
            await driver.prepare(())

    async def _sleep_at_last(self, sandbox_id: str) -> None:
        try:
            await self.sleep(sandbox_id)
        except HandiworkError as failed:
            self._log.warning("not put to sleep", sandbox=sandbox_id, reason=str(failed))

    @property
    def free(self) -> int:
        """Return how many more may live, beside those that are expected."""
        return self._places + len(self._resting) - len(self._expected)

    @property
    def _places(self) -> int:
        return self._settings.max_sandboxes - len(self._live) - self._starting

    def expect(self, wanted_by: str) -> None:
        """Count a session (`served_as`) in that was claimed and will want a sandbox; it counts once."""
        self._expected.add(wanted_by)

    def expect_no_more(self, wanted_by: str) -> None:
        """Count it out: it has its sandbox, or will have none. No-op when it was not expected."""
        self._expected.discard(wanted_by)

    async def create(self, request: SandboxRequest, *, wanted_by: str = "") -> SandboxRecord:
        """Make one. Raises what failed, after undoing it and leaving a FAILED record.

        `wanted_by`: the session, as it is expected.
        """
        record = recorded(request, self._settings, self._clock())
        await self._store.sandboxes.save(record)
        async with self._locked(record.id):
            try:
                await self._bring_up(record, fresh=True, wanted_by=wanted_by)
                return await self._save(record, SandboxState.RUNNING)
            except BaseException as error:
                await self._undo(record, error)
                raise

    async def use(self, sandbox_id: str) -> Sandbox:
        """Return it running, waking it first when it sleeps. NotFoundError, ConflictError."""
        self._wants_rest_no_more(sandbox_id)
        if not self._is_awake(sandbox_id):
            await self._wake(sandbox_id)
            self._wants_rest_no_more(sandbox_id)
        self._idle.used(sandbox_id)
        return self._live[sandbox_id].sandbox

    def _wants_rest_no_more(self, sandbox_id: str) -> None:
        for one in (self._owed, self._until):
            one.pop(sandbox_id, None)
        self._unused.discard(sandbox_id)

    def _is_used(self, sandbox_id: str) -> bool:
        """Whether its session is served, or somebody waits for a call of it."""
        called = (live := self._live.get(sandbox_id)) is not None and live.is_called
        return called or sandbox_id in self.renewals or sandbox_id in self._loans

    async def _may_rest(self, sandbox_id: str) -> bool:
        record = await self._store.sandboxes.get(sandbox_id)
        return bool(record.session_id) and self._is_awake(sandbox_id)

    def tools(self, sandbox_id: str) -> ToolState:
        """Return what a session's tools have in it, for as long as it lives; empty when it does not."""
        live = self._live.get(sandbox_id)
        return live.tools if live else ToolState()

    def _is_awake(self, sandbox_id: str) -> bool:
        return sandbox_id in self._live and sandbox_id not in self._resting

    @contextlib.asynccontextmanager
    async def lend(self, sandbox_id: str) -> AsyncIterator[Sandbox]:
        """Yield it running, to look at. One that slept or stood still does so after its last loan.

        It stays awake when somebody else wakes or uses it meanwhile.
        """
        stood = sandbox_id in self._resting
        try:
            if not self._is_awake(sandbox_id) and await self._wake(sandbox_id):
                self._owed[sandbox_id] = "rest" if stood else "sleep"
        except BaseException:
            if stood:
                self.rest_unused(sandbox_id)
            raise
        self._loans[sandbox_id] = self._loans.get(sandbox_id, 0) + 1
        try:
            yield self._live[sandbox_id].sandbox
        finally:
            left = self._loans.pop(sandbox_id, 1) - 1
            if left > 0:
                self._loans[sandbox_id] = left
            elif self._owed.get(sandbox_id) == "rest":
                self.rest_unused(sandbox_id)
            elif sandbox_id in self._owed:
                await self._returned(sandbox_id)

    async def _returned(self, sandbox_id: str) -> None:
        async with self._locked(sandbox_id):
            if sandbox_id in self._owed and sandbox_id not in self._loans:
                await self._put_to_sleep(sandbox_id)

    async def wake(self, sandbox_id: str, *, wanted_by: str = "") -> SandboxRecord:
        """Restore a sleeping one under today's policies. A failure leaves its files as they are."""
        self._wants_rest_no_more(sandbox_id)
        await self._wake(sandbox_id, wanted_by)
        self._wants_rest_no_more(sandbox_id)
        self._idle.used(sandbox_id)
        return await self._store.sandboxes.get(sandbox_id)

    async def _wake(self, sandbox_id: str, wanted_by: str = "") -> bool:
        """Bring it up, or let it go on; False when it was up already.

        A session (`wanted_by`) has its policies and secrets looked up anew in any case.
        """
        async with self._locked(sandbox_id):
            record = await self._store.sandboxes.get(sandbox_id)
            if self._is_awake(sandbox_id) and not wanted_by:
                return False
            if record.state not in _HAS_FILES:
                raise ConflictError(f"the sandbox {sandbox_id} is {record.state.value}")
            await self._keeping.interrupt(sandbox_id)
            lived = sandbox_id in self._live
            if not lived or not await self._goes_on(record):
                await self._bring_up(record, fresh=False, wanted_by=wanted_by, placed=lived)
                await self._save(record, SandboxState.RUNNING)
            return True

    async def _goes_on(self, record: SandboxRecord) -> bool:
        """Let a live one go on under today's policies.

        False: it sleeps, and has its place still, as they give it other variables.
        """
        live = self._live[record.id]
        layers, grant = await self._grants.today(record)
        if variables(record, grant) != live.env:
            self._starting += 1
            try:
                await self._take_down(record.id)
                await self._save(record, SandboxState.SLEEPING)
            except BaseException:
                self._starting -= 1
                raise
            return False
        live.layers = layers
        await self._boundary.update(record.id, grant)
        await self._resting.thaw(record.id)
        await self._save(record, SandboxState.RUNNING)
        return True

    async def sleep(self, sandbox_id: str) -> SandboxRecord:
        """End its processes and its way out, keep its files. No-op when it sleeps."""
        if sandbox_id in self._live:
            await self._keeping.interrupt(sandbox_id)
        async with self._locked(sandbox_id):
            return await self._put_to_sleep(sandbox_id)

    async def _put_to_sleep(self, sandbox_id: str) -> SandboxRecord:
        record = await self._store.sandboxes.get(sandbox_id)
        if sandbox_id not in self._live:
            return record
        if sandbox_id in self._resting:
            await self._keeping.interrupt(sandbox_id)
        await self._take_down(sandbox_id)
        saved = await self._save(record, SandboxState.SLEEPING)
        self._slept(saved)
        return saved

    async def rest(self, sandbox_id: str, *, long: bool = True) -> None:
        """Its session rests: stand still for a while, where the operator wants that, or sleep."""
        if not long or not self._resting.permitted():
            await self.sleep(sandbox_id)
            return
        self._unused.add(sandbox_id)
        try:
            await self._rest_after(sandbox_id)
        finally:
            self._unused.discard(sandbox_id)

    def rest_unused(self, sandbox_id: str) -> None:
        """Have it rest as soon as nobody holds it, unless somebody wakes or uses it before."""
        if sandbox_id in self._live and sandbox_id not in self._unused:
            self._unused.add(sandbox_id)
            self._group.create_task(self._rest_after(sandbox_id))

    async def _rest_after(self, sandbox_id: str) -> None:
        async with self._locked(sandbox_id):
            await self._retire(sandbox_id)

    async def _retire(self, sandbox_id: str) -> None:
        """Have it stand still, or sleep, unless somebody wanted it since; what fails is told."""
        may = self._is_awake(sandbox_id) and not self._stopping and self._resting.permitted()
        try:
            if sandbox_id not in self._unused:
                return
            if may and sandbox_id in self._loans:
                self._owed[sandbox_id] = "rest"
            elif not may or not await self._stands(sandbox_id):
                await self._put_to_sleep(sandbox_id)
        except HandiworkError as error:
            self._log.warning("not put to sleep", sandbox=sandbox_id, reason=str(error))
        finally:
            self._unused.discard(sandbox_id)

    async def _stands(self, sandbox_id: str) -> bool:
        """Hold its processes still, unless it is used again by now. False: that cannot be."""
        live, record = self._live[sandbox_id], await self._store.sandboxes.get(sandbox_id)
        if sandbox_id not in self._unused:
            return True
        self._owed.pop(sandbox_id, None)
        first = sandbox_id not in self._until
        ends_at = asyncio.get_running_loop().time() + self._settings.freeze_seconds
        try:
            until = self._until.setdefault(sandbox_id, ends_at)
            await self._resting.freeze(sandbox_id, live.sandbox, until)
        except HandiworkError as error:
            self._log.warning("not frozen", sandbox=sandbox_id, reason=str(error))
            return False
        await self._save(record, SandboxState.RUNNING, STANDS)
        if first:
            self._keeping.stands(record, live.driver)
        return True

    async def close(self, sandbox_id: str) -> SandboxRecord:
        """Delete it and all it left. No-op when it is gone."""
        async with self._locked(sandbox_id):
            record = await self._store.sandboxes.get(sandbox_id)
            if record.state is SandboxState.GONE:
                return record
            await self._keeping.interrupt(sandbox_id)
            driver = self._driver(record)
            if sandbox_id in self._live:
                keeps = self._keeping.keeps_closed(driver)
                await self._take_down(sandbox_id, keep=keeps)
                record = await self._save(record, SandboxState.SLEEPING)
            await self._keeping.closing(record, driver)
            await driver.destroy(sandbox_id)
            if record.session_id:
                await self._store.placeholders.delete(record.session_id)
            return await self._save(record, SandboxState.GONE)

    @contextlib.asynccontextmanager
    async def held(self, sandbox_id: str) -> AsyncIterator[Held]:
        """Yield it as it is, running or not, while nobody changes that; see `Held`."""
        async with self._locked(sandbox_id):
            await self._keeping.interrupt(sandbox_id)
            record = await self._store.sandboxes.get(sandbox_id)
            if sandbox_id in self._resting:
                try:
                    await self._resting.thaw(sandbox_id)
                    record = await self._save(record, SandboxState.RUNNING)
                finally:
                    self.rest_unused(sandbox_id)
            live = self._live.get(sandbox_id)
            yield Held(record, self._driver(record), live.sandbox if live else None)

    async def replaced(self, sandbox_id: str, change: Change) -> SandboxRecord:
        """Change its files while it does not run; one that ran runs again, also when that failed."""
        async with self._locked(sandbox_id):
            await self._keeping.interrupt(sandbox_id)
            record = await self._store.sandboxes.get(sandbox_id)
            driver = self._driver(record)
            if record.state not in _HAS_FILES:
                raise ConflictError(f"the sandbox {sandbox_id} is {record.state.value}")
            ran = self._is_awake(sandbox_id)
            if ran:
                await self._grants.today(record)  # else it would not run again
            if sandbox_id in self._live:
                await self._take_down(sandbox_id)
                record = await self._save(record, SandboxState.SLEEPING)
            try:
                await change(record, driver)
            finally:
                if ran:
                    await self._bring_up(record, fresh=False)
                    record = await self._save(record, SandboxState.RUNNING)
        if ran and (renew := self.renewals.get(sandbox_id)):
            await renew()
        return record

    async def create_of(
        self, request: SandboxRequest, change: Change, origin: str
    ) -> SandboxRecord:
        """Make one whose files are there before it first runs; it sleeps. Undone as by `create`."""
        record = recorded(request, self._settings, self._clock(), origin)
        await self._store.sandboxes.save(record)
        async with self._locked(record.id):
            try:
                check_minimum(record, self._settings.minimum_tier)
                driver = self._driver(record)
                await self._grants.today(record)
                await change(record, driver)
                return await self._save(record, SandboxState.SLEEPING)
            except BaseException as error:
                await self._undo(record, error)
                raise

    async def claim(self, sandbox_id: str, path: str) -> None:
        """Remember a path of what its session brings along: it is in no snapshot, ever."""
        async with self._locked(sandbox_id):
            record = await self._store.sandboxes.get(sandbox_id)
            if path not in record.attached:
                attached = (*record.attached, path)
                await self._store.sandboxes.save(msgspec.structs.replace(record, attached=attached))

    async def adopt(self) -> None:
        """Take over what a former run left: what was running sleeps now."""
        kept = {tier: set(await one.leftovers()) for tier, one in self._drivers.items()}
        for record in await self._store.sandboxes.list():
            if record.id in self._live or record.state not in _RUNNING:
                continue
            if record.tier not in self._drivers:
                reason = (
                    f"its tier {record.tier!r} is not available here; its files stay as they are"
                )
                await self._save(record, SandboxState.SLEEPING, reason)
            elif record.id in kept[record.tier]:
                await self._driver(record).sleep(record.id)
                self._slept(await self._save(record, SandboxState.SLEEPING))
            elif source := await self._keeping.recoverable(record):
                reason = f"its files are gone from this host; it wakes from {source}"
                await self._save(record, SandboxState.SLEEPING, reason)
            else:
                reason = "it was lost with the run that made it"
                await self._save(record, SandboxState.FAILED, reason)

    async def refresh(self, policy_name: str = "") -> None:
        """Apply a changed policy (or any change, without a name) to the sandboxes that run.

        One whose policies cannot be resolved any more may do nothing, until they can. What fails of
        one is raised when it was tried of all.
        """
        self._grants.changes += 1
        failed: HandiworkError | None = None
        for sandbox_id, live in list(self._live.items()):
            if not policy_name or policy_name in live.layers:
                try:
                    await self._apply(sandbox_id, live)
                except HandiworkError as error:
                    failed = error
        if failed is not None:
            raise failed

    async def _apply(self, sandbox_id: str, live: Live) -> None:
        record = await self._store.sandboxes.get(sandbox_id)
        try:
            live.layers = await self._policies.layers(record)
            live.layers, grant = await self._grants.today(record)
            await self._change_exit(sandbox_id, grant)
        except HandiworkError as error:
            await self._change_exit(sandbox_id, NOTHING)
            self._log.warning("policy not resolved", sandbox=sandbox_id, reason=str(error))
            async with self._locked(sandbox_id):
                if self._live.get(sandbox_id) is live:
                    record = await self._store.sandboxes.get(sandbox_id)
                    await self._save(record, record.state, str(error))

    async def _change_exit(self, sandbox_id: str, grant: EgressGrant) -> None:
        """Change what a way out lets through; one that sleeps meanwhile has none."""
        with contextlib.suppress(NotFoundError):
            await self._boundary.update(sandbox_id, grant)

    async def _bring_up(
        self, record: SandboxRecord, *, fresh: bool, wanted_by: str = "", placed: bool = False
    ) -> None:
        """Policies, way out, sandbox, in this order; a failure closes the way out again."""
        check_minimum(record, self._settings.minimum_tier)
        driver = self._driver(record)
        self.expect_no_more(wanted_by)
        if not placed:
            await self._make_place()
            self._starting += 1
        try:
            layers, grant = await self._grants.today(record)
            changes = self._grants.changes
            if not fresh:
                await self._keeping.recover(record, driver)
            spec = await self._spec(record, grant)
            try:
                sandbox = await (driver.create(spec) if fresh else driver.restore(spec))
            except BaseException:
                await self._boundary.close(record.id)
                raise
            self.to_prepare.set()
            live = self._live[record.id] = Live(sandbox, driver, layers, spec.env)
            live.watch = self._group.create_task(self._watch(record.id, live))
            if changes != self._grants.changes:
                await self._catch_up(record, live, keep=not fresh)
        finally:
            self._starting -= 1

    async def _catch_up(self, record: SandboxRecord, live: Live, *, keep: bool) -> None:
        """Apply what changed while it was made; where that fails it does not run."""
        try:
            live.layers, grant = await self._grants.today(record)
            await self._boundary.update(record.id, grant)
        except BaseException:
            await self._take_down(record.id, keep=keep)
            raise

    async def _make_place(self) -> None:
        """See to it that there is a place: put to sleep who stands still, the oldest first."""
        for oldest in self._resting.oldest_first():
            lock = self._locks.get(oldest)
            if self._places <= 0 and not (lock and lock.locked()):
                async with self._locked(oldest):
                    if oldest in self._resting:
                        self._unused.add(oldest)
                        await self._retire(oldest)
        if self._places <= 0:
            most = self._settings.max_sandboxes
            raise SandboxUnavailableError(f"{most} sandboxes run already; close or sleep one")

    async def _spec(self, record: SandboxRecord, grant: EgressGrant) -> SandboxSpec:
        way_out = await self._boundary.open(binding(record), grant)
        return SandboxSpec(
            id=record.id,
            image=record.image,
            limits=record.limits or self._settings.limits,
            env=variables(record, grant),
            exit=SandboxExit(socket_path=way_out.path, ca_certificate=way_out.ca_certificate),
        )

    async def _take_down(self, sandbox_id: str, *, keep: bool = True) -> None:
        """End a live one. It is live no more even when that fails."""
        await self._resting.thaw(sandbox_id)
        for one in (self._owed, self._until):
            one.pop(sandbox_id, None)
        live = self._live.pop(sandbox_id)
        if live.watch is not None:
            live.watch.cancel()
        try:
            await (live.driver.sleep if keep else live.driver.destroy)(sandbox_id)
        finally:
            await self._boundary.close(sandbox_id)

    async def _undo(self, record: SandboxRecord, error: BaseException) -> None:
        """Leave nothing of a sandbox that could not be made but the reason."""
        driver = self._drivers.get(record.tier)
        try:
            if record.id in self._live:
                await self._take_down(record.id, keep=False)
            elif driver is not None:
                await driver.destroy(record.id)
        except HandiworkError as failed:
            self._log.warning("not undone", sandbox=record.id, reason=str(failed))
        finally:
            await self._save(record, SandboxState.FAILED, str(error) or type(error).__name__)

    async def _watch(self, sandbox_id: str, live: Live) -> None:
        reason = await live.sandbox.closed()
        async with self._locked(sandbox_id):
            if self._live.get(sandbox_id) is not live:
                return
            live.watch = None
            self._log.warning("sandbox died", sandbox=sandbox_id, reason=reason)
            # What follows the reason may name places of this host: it is for the operator alone.
            text = f"the sandbox died, and all its processes with it; its files are kept: {reason}"
            if sandbox_id in self._resting:
                await self._keeping.interrupt(sandbox_id)
            try:
                await self._take_down(sandbox_id)
            except HandiworkError as error:
                reason = f"{reason}; {error}"
            record = await self._store.sandboxes.get(sandbox_id)
            await notify(self._store, record.session_id, text, self._clock)
            self._slept(await self._save(record, SandboxState.SLEEPING, f"{DIED}{reason}"))

    def _slept(self, record: SandboxRecord) -> None:
        self._keeping.slept(record, self._driver(record), stopping=self._stopping)

    async def _save(
        self, record: SandboxRecord, state: SandboxState, reason: str = ""
    ) -> SandboxRecord:
        saved = msgspec.structs.replace(
            record, state=state, reason=reason, updated_at=self._clock()
        )
        await self._store.sandboxes.save(saved)
        return saved

    def _driver(self, record: SandboxRecord) -> Driver:
        driver = self._drivers.get(record.tier)
        if driver is None:
            raise UnsupportedError(
                f"the tier {record.tier!r} is not available here;"
                f" available: {', '.join(sorted(self._drivers)) or 'none'}"
            )
        return driver

    @contextlib.asynccontextmanager
    async def _locked(self, sandbox_id: str) -> AsyncIterator[None]:
        """One change of a sandbox at a time; a lock lives as long as somebody holds or awaits it."""
        lock = self._locks.setdefault(sandbox_id, asyncio.Lock())
        async with lock:
            yield
