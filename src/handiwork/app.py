"""The composition root: settings in, a running control plane out.

The only file that names concrete adapters. Whatever cannot be had stops the start before anything
serves: ConfigError says what, where and what to do.
"""

import asyncio
import base64
import functools
import hashlib
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from handiwork import config, hook_process, listeners, process
from handiwork.api.application import create_api
from handiwork.api.control import Control
from handiwork.api.server import serving
from handiwork.brains.holding import Records
from handiwork.brains.model_settings import keyed_models
from handiwork.config import EnvironmentSettings, Settings, SnapshotSettings, StagingSettings
from handiwork.egress.control import ProxySettings
from handiwork.egress.registry import EgressRegistry
from handiwork.fleet.local import LocalFleet
from handiwork.model.egress import EgressBinding, EgressGrant
from handiwork.model.errors import ConfigError, ConflictError
from handiwork.model.ids import DEFAULT_TENANT
from handiwork.model.language_model import KeyedModel
from handiwork.model.policy import AllowRule, Match, Policy, PolicyLayer
from handiwork.observe.metrics import Metrics
from handiwork.sandboxes.images.store import Images
from handiwork.sandboxes.probe import probe
from handiwork.sandboxes.protocol import Driver
from handiwork.sessions.agents import adopt_agents
from handiwork.sessions.attachments import Sources
from handiwork.sessions.audit import AuditIndex
from handiwork.sessions.dispatcher import Dispatcher
from handiwork.sessions.drain import Drain, drained
from handiwork.sessions.environments import Environments, Served
from handiwork.sessions.outputs import outputs_of
from handiwork.sessions.policies import PolicyResolver
from handiwork.sessions.polling import PollBudget
from handiwork.sessions.processes import Processes
from handiwork.sessions.reaper import adopt_sessions, reap
from handiwork.sessions.room import Room
from handiwork.sessions.runner import Hands, nobody
from handiwork.sessions.runs import Runs
from handiwork.sessions.sandboxes import LiveSandboxes
from handiwork.sessions.skills import SkillShelf
from handiwork.sessions.snapshots.background import Background
from handiwork.sessions.snapshots.moves import Moves
from handiwork.sessions.snapshots.opening import opened_shelf
from handiwork.sessions.sweep import Sweep
from handiwork.sessions.webhooks import WEBHOOK_KEYS, keys_of
from handiwork.store.archive_cache import ArchiveCache
from handiwork.store.envelope import load_control_key
from handiwork.store.environment_keys import LocalKeys, environments_with_keys, local_keys
from handiwork.store.layout import Layout, read_or_create, read_private
from handiwork.store.object_blobs import ObjectBlobs, S3Place
from handiwork.store.protocol import Store
from handiwork.store.sqlite import open_sqlite_store
from handiwork.supervisor import (
    EgressProxy,
    LocalBrain,
    OwnId,
    Program,
    Supervisor,
    kept,
    tasks,
)
from handiwork.tiers import GUEST_AGENT, tier_drivers
from handiwork.tools.toolset import check_timeouts, stock

if TYPE_CHECKING:
    from handiwork.brains.anthropic import AnthropicBrain

KEPT_CAPABILITIES = (0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 21, 24, 27, 31)
"""chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, sys_chroot
(what builds images works in their trees), sys_admin (mounts, id maps), sys_resource (limits), mknod,
setfcap (the launcher's map of inside root)."""

NEEDED = ("userns", "pidns", "overlay", "nftables", "seccomp")
"""Findings of the probe without which no sandbox of the namespace tier starts."""

CALLBACKS = EgressBinding(id="local-brain", kind="hook", ca_id="local-brain")
CALLBACKS_GRANT = EgressGrant(
    layers=(
        PolicyLayer(
            scope="global",
            policy=Policy(
                name="local-brain-callbacks",
                rules=(AllowRule(id="https", match=Match(hosts=("*",), methods=("POST",))),),
            ),
        ),
    )
)
"""Webhooks go to whatever public host an endpoint names; the proxy refuses every other address."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A control plane that serves."""

    layout: Layout
    api_url: str
    brain_url: str
    environment_id: str
    """The local brain's environment; empty when it is not enabled."""
    supervisor: Supervisor
    engine: "_Engine"

    async def drain(self, hurry: asyncio.Event) -> None:
        """End serving without losing work, within the grace of the settings; `hurry` cuts it."""
        engine = self.engine
        async with asyncio.TaskGroup() as group:
            hurrying = group.create_task(_hurry(hurry, engine.drain))
            await drained(
                engine.drain,
                engine.fleet,
                engine.dispatchers,
                grace_seconds=engine.grace_seconds,
            )
            hurrying.cancel()

    def addresses(self) -> dict[str, str]:
        """Return where it listens, for programs that started it on free ports."""
        return {
            "api": self.api_url,
            "local_brain": self.brain_url,
            "environment_id": self.environment_id,
        }


@dataclass(frozen=True, kw_only=True)
class _Engine:
    """What serves sessions, and how it ends."""

    dispatchers: Sequence[Dispatcher]
    sweeps: Sequence[Sweep]
    fleet: LocalFleet
    drain: Drain
    environments: Environments
    grace_seconds: float


async def _hurry(asked: asyncio.Event, drain: Drain) -> None:
    await asked.wait()
    drain.hurry()


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Start everything, serve while the body runs, stop cleanly at its end.

    ConfigError before anything serves; a part that fails later ends the body.
    """
    await _prove_host()
    layout = _layout(settings)
    async with AsyncExitStack() as stack:
        ids = settings.process if process.is_root() else None
        layout.prepare(
            egress_id=ids.egress_id if ids else None,
            brain_id=ids.brain_id if ids else None,
            hooks_id=ids.hooks_id if ids else None,
        )
        stack.callback(os.close, layout.lock())
        ports = listeners.bind(settings, stack)
        _harden()
        store = await stack.enter_async_context(opened_store(layout))
        keys = await local_keys(store) if settings.local_brain.enabled else None
        environments = await environments_with_keys(settings, keys, store)
        images = Images(layout.images)
        tiers = [one.tier for one, _ in environments]
        metrics = Metrics()
        drivers = await tier_drivers(settings, layout, images, tiers, clock=now, metrics=metrics)
        models = await _models(settings, store)
        parts = _Parts(
            settings, layout, ports, store, keys, environments, images, drivers, models, metrics
        )
        yield await _start(parts, stack)


@asynccontextmanager
async def opened_store(layout: Layout) -> AsyncIterator[Store]:
    """Open the control plane's store, on a directory whose lock the caller holds."""
    store = await open_sqlite_store(
        layout.database, control_key=load_control_key(layout.control_key)
    )
    try:
        yield store
    finally:
        await store.close()


@dataclass(frozen=True)
class _Parts:
    """What is there before anything runs."""

    settings: Settings
    layout: Layout
    ports: listeners.Ports
    store: Store
    keys: LocalKeys | None
    environments: Sequence[tuple[EnvironmentSettings, str]]
    images: Images
    drivers: Mapping[str, Driver]
    models: Sequence[KeyedModel]
    metrics: Metrics

    @property
    def brain_url(self) -> str:
        """Where the local brain listens; empty when it is not enabled."""
        return listeners.url(self.ports.brain) if self.ports.brain else ""


async def _start(parts: _Parts, stack: AsyncExitStack) -> Running:
    """Start from the bottom up; the stack takes everything down in the opposite order."""
    supervisor = Supervisor()
    registry = await stack.enter_async_context(_registry(parts.settings, parts.layout))
    await stack.enter_async_context(kept(supervisor, [_proxy(parts, registry)]))
    hooks = await hook_process.started(parts, registry, supervisor, stack)
    brain = await _local_brain(parts, registry, stack)
    await stack.enter_async_context(kept(supervisor, brain))
    keeping = await _snapshots(parts, stack)
    live, policies = await _sandboxes(parts, registry, keeping, stack)
    moves = Moves(keeping, live) if keeping else None
    engine = await _engine(parts, live, policies, moves, stack)
    dispatchers = engine.dispatchers
    served = {one.id: by for (one, _), by in zip(parts.environments, dispatchers, strict=True)}
    index = AuditIndex(parts.layout.audit, parts.store.audit)
    await stack.enter_async_context(
        tasks(
            [
                index.run(),
                *([keeping.upkeep(time.monotonic).run()] if keeping else []),
                *(by.run() for by in dispatchers),
                *(one.run() for one in engine.sweeps),
            ]
        )
    )
    runs = await _runs(parts, live, stack)
    control = Control(
        store=parts.store,
        images=parts.images,
        sandboxes=live,
        boundary=registry,
        stop_session=lambda session_id: _stop(parts.store, served, session_id),
        snapshots=moves,
        hooks=hooks,
        index_audit=index.refresh,
        runs=runs,
        processes=await _processes(parts, stack),
        readiness=lambda: _readiness(registry, dispatchers),
        wake=lambda: _wake(dispatchers),
        environments=engine.environments.status,
        environment_ids=tuple(served),
        models_changed=_models_changed(parts, brain),
        webhook_keys=await _webhook_keys(parts.settings, parts.store),
        now=now,
        admin_key_hash=_admin_key_hash(parts.layout),
        settings=parts.settings,
        metrics=parts.metrics,
    )
    serves = [parts.ports.api, listeners.unix(parts.layout, stack)]
    await stack.enter_async_context(serving(create_api(control), serves))
    result = Running(
        layout=parts.layout,
        api_url=listeners.url(parts.ports.api),
        brain_url=parts.brain_url,
        environment_id=parts.keys.environment_id if parts.keys else "",
        supervisor=supervisor,
        engine=engine,
    )
    _tell_addresses(parts.layout, result, stack)
    return result


async def _snapshots(parts: _Parts, stack: AsyncExitStack) -> Background | None:
    """Return who keeps the files of sandboxes elsewhere; None where the settings want nobody."""
    if not parts.settings.snapshots.enabled:
        return None
    opened = opened_shelf(
        parts.settings,
        _blobs(parts.settings.snapshots, parts.layout),
        parts.store,
        parts.images,
        clock=now,
        draw=secrets.token_bytes,
        metrics=parts.metrics,
    )
    return await stack.enter_async_context(opened)


def _blobs(settings: SnapshotSettings, layout: Layout) -> ObjectBlobs:
    place = settings.s3
    if not place.bucket:
        return ObjectBlobs.in_directory(
            Path(settings.directory) if settings.directory else layout.snapshots
        )
    where = f"snapshots.s3.secret_key_file {place.secret_key_file}"
    return ObjectBlobs.on_s3(
        S3Place(
            bucket=place.bucket,
            prefix=place.prefix,
            endpoint=place.endpoint,
            region=place.region,
            access_key_id=place.access_key_id,
            secret_access_key=read_private(Path(place.secret_key_file), where),
            timeout_seconds=place.timeout_seconds,
            retry_seconds=place.timeout_seconds,
        )
    )


async def _sandboxes(
    parts: _Parts, registry: EgressRegistry, keeping: Background | None, stack: AsyncExitStack
) -> tuple[LiveSandboxes, PolicyResolver]:
    environments = {one.id: one for one, _ in parts.environments}
    policies = PolicyResolver(parts.store, parts.settings, environments)
    live = LiveSandboxes(
        drivers=parts.drivers,
        boundary=registry,
        store=parts.store,
        policies=policies,
        settings=parts.settings.sandbox,
        clock=now,
        keeping=keeping,
    )
    await stack.enter_async_context(live)
    await adopt_agents(parts.store.agents, environments.keys())
    await adopt_sessions(parts.store, now, environments.keys())
    await live.adopt()
    await reap(parts.store, parts.drivers, now, keeping)
    return live, policies


async def _engine(
    parts: _Parts,
    live: LiveSandboxes,
    policies: PolicyResolver,
    moves: Moves | None,
    stack: AsyncExitStack,
) -> _Engine:
    """Brains outlive the fleet: a session that is let go still has to tell its brain."""
    settings, registry, drain = parts.settings.sessions, stock(), Drain()
    check_timeouts(parts.settings.tools, registry)
    shelf = SkillShelf(ArchiveCache(parts.layout.skills))
    brains = [_brain(one, key, parts, stack) for one, key in parts.environments]
    hands = [
        Hands(
            brain=brain,
            store=parts.store,
            sandboxes=live,
            policies=policies,
            registry=registry,
            settings=settings,
            tools=parts.settings.tools,
            sources=_sources(brain, shelf, parts.settings.staging),
            clock=now,
            metrics=parts.metrics,
            drain=drain,
            written=moves.written if moves else nobody,
        )
        for brain in brains
    ]
    fleet = await stack.enter_async_context(LocalFleet(max_sessions=settings.max_sessions))
    polls, full = PollBudget(settings.polls_per_minute), Room(live, parts.settings.sandbox)
    dispatchers = [Dispatcher(each, fleet, polls=polls, full=full) for each in hands]
    sweeps = [Sweep(each, polls, by) for each, by in zip(hands, dispatchers, strict=True)]
    served = [
        Served(base_url=one.base_url or parts.brain_url, brain=each.brain, dispatcher=by)
        for (one, _), each, by in zip(parts.environments, hands, dispatchers, strict=True)
    ]
    return _Engine(
        dispatchers=dispatchers,
        sweeps=sweeps,
        fleet=fleet,
        drain=drain,
        environments=Environments(served, parts.store.leases, clock=now, now=time.monotonic),
        grace_seconds=settings.drain_seconds,
    )


async def _processes(parts: _Parts, stack: AsyncExitStack) -> Processes:
    """After the sandboxes, so that its processes are told to end before those do."""
    processes = await stack.enter_async_context(Processes(store=parts.store, clock=now))
    await processes.adopt()
    return processes


async def _runs(parts: _Parts, live: LiveSandboxes, stack: AsyncExitStack) -> Runs:
    """Runs are at the local brain: of no other do we hold the key that starts sessions."""
    talk = None
    if parts.keys:
        from handiwork.brains.conversation import conversation

        opened = conversation(base_url=parts.brain_url, api_key=parts.keys.api_key)
        talk = await stack.enter_async_context(opened)
    runs = Runs(
        store=parts.store,
        talk=talk,
        environment_id=parts.keys.environment_id if parts.keys else "",
        files=lambda session_id: outputs_of(parts.store, live, session_id),
        clock=now,
    )
    return await stack.enter_async_context(runs)


def _harden() -> None:
    try:
        process.harden(keep_capabilities=KEPT_CAPABILITIES, may_gain=True)
    except OSError as error:
        raise ConfigError(
            f"this process {error.strerror}; start it as an ordinary user, or as root with all rights"
        ) from None


def _layout(settings: Settings) -> Layout:
    return Layout(config.data_dir(settings, is_root=process.is_root(), home=Path.home()))


def _admin_key_hash(layout: Layout) -> bytes:
    key = read_or_create(layout.admin_key, f"hw_{secrets.token_urlsafe(32)}\n".encode())
    return hashlib.sha256(key.strip()).digest()


async def _webhook_keys(settings: Settings, store: Store) -> tuple[bytes, ...]:
    """Return the signing keys of the files and of the control secrets."""
    kept = await store.control_secrets.get(WEBHOOK_KEYS)
    texts = [(kept, "the webhook key that `handiwork init` stored")] if kept else []
    for name in settings.webhooks.key_files:
        where = f"webhooks.key_files {name}"
        texts.append((read_private(Path(name), where), where))
    return keys_of(texts)


async def _prove_host() -> None:
    """Do what every sandbox needs, once; ConfigError names the first thing that this host lacks."""
    closed = process.closed_code() if process.is_root() else None
    if closed:
        raise ConfigError(
            f"{closed} may be entered by root only, but our processes run under ids of their own;"
            f" run `chmod -R o+rX {closed}`"
        )
    for finding in await probe(GUEST_AGENT):
        if finding.name in NEEDED and not finding.ok:
            raise ConfigError(
                f"this host cannot carry sandboxes: {finding.name}: {finding.detail};"
                f" {finding.fix}; `handiwork doctor` tells more"
            )


@asynccontextmanager
async def _registry(settings: Settings, layout: Layout) -> AsyncIterator[EgressRegistry]:
    home = process.HOME if process.is_root() else str(layout.egress)
    proxy = ProxySettings(
        keys=f"{home}/keys",
        audit=f"{home}/audit",
        connect_seconds=settings.egress.connect_timeout_seconds,
        idle_seconds=settings.egress.idle_timeout_seconds,
        hook_seconds=settings.hooks.call_seconds,
    )
    exits, hooks = listeners.exits(layout), settings.hooks.enabled
    async with EgressRegistry(exits, proxy, hooks=hooks) as registry:
        yield registry


def _proxy(parts: _Parts, registry: EgressRegistry) -> EgressProxy:
    own = _own_id(parts.settings.process.egress_id, parts.layout.egress)
    return EgressProxy(registry, own, parts.settings.log)


async def _local_brain(
    parts: _Parts, registry: EgressRegistry, stack: AsyncExitStack
) -> list[Program]:
    layout, ports, keys = parts.layout, parts.ports, parts.keys
    if keys is None or ports.brain is None:
        return []
    own = _own_id(parts.settings.process.brain_id, layout.local_brain)
    environment = {
        "id": keys.environment_id,
        "name": parts.settings.local_brain.environment_name,
        "key": keys.environment_key,
    }
    way_out = await stack.enter_async_context(registry.bind_tool(CALLBACKS, CALLBACKS_GRANT))
    bootstrap = {
        "database": f"{process.HOME if own else layout.local_brain}/brain.db",
        "listen_fd": ports.brain.fileno(),
        "api_key": keys.api_key,
        "environments": [environment],
        "models": msgspec.to_builtins(parts.models),
        "exit_fd": way_out,
        "webhook_hosts": parts.settings.local_brain.webhook_hosts,
        "seal_key": base64.b64encode(await registry.seal_key(DEFAULT_TENANT)).decode(),
    }
    layout.local_brain_key.unlink(missing_ok=True)
    read_or_create(layout.local_brain_key, keys.api_key.encode() + b"\n")
    return [LocalBrain(bootstrap, (ports.brain.fileno(), way_out), own, parts.settings.log)]


async def _models(settings: Settings, store: Store) -> list[KeyedModel]:
    def key_of(path: str, where: str) -> str:
        return read_private(Path(path), f"{where} {path}")

    return await keyed_models(settings.local_brain.models, store, key_of)


def _models_changed(
    parts: _Parts, programs: Sequence[Program]
) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return what tells the local brain of its models; of two changes the later is told last."""
    one_at_a_time = asyncio.Lock()

    async def tell() -> None:
        async with one_at_a_time:
            models = await _models(parts.settings, parts.store)
            for program in programs:
                if isinstance(program, LocalBrain):
                    program.tell_models(models)

    return tell


def _own_id(user: int, home: Path) -> OwnId | None:
    return OwnId(user, home) if process.is_root() else None


def _brain(
    environment: EnvironmentSettings, key: str, parts: _Parts, stack: AsyncExitStack
) -> "AnthropicBrain":
    """Return the brain of one environment. The SDK takes seconds to load: who serves none waits not."""
    from handiwork.brains.anthropic import AnthropicBrain

    brain = AnthropicBrain(
        environment_id=environment.id,
        environment_key=key,
        base_url=environment.base_url or parts.brain_url,
        lease_seconds=parts.settings.sessions.lease_seconds,
        records=Records(parts.store.leases, now),
    )
    brain.posts_again = functools.partial(parts.metrics.post, "retried")
    stack.push_async_callback(brain.close)
    return brain


def _sources(brain: "AnthropicBrain", shelf: SkillShelf, staging: StagingSettings) -> Sources:
    from handiwork.brains.resources import AnthropicMemories, AnthropicSkills

    return Sources(
        skills=AnthropicSkills(brain.access),
        memories=AnthropicMemories(brain.access),
        shelf=shelf,
        staging=staging,
    )


async def _stop(store: Store, served: Mapping[str, Dispatcher], session_id: str) -> None:
    """Stop a session where its environment is served."""
    session = await store.sessions.get(session_id)
    dispatcher = served.get(session.environment_id)
    if dispatcher is None or not await dispatcher.stop(session_id):
        raise ConflictError(f"the session {session_id} is not being served")


def _wake(dispatchers: Sequence[Dispatcher]) -> None:
    for dispatcher in dispatchers:
        dispatcher.wake()


def _readiness(registry: EgressRegistry, dispatchers: Sequence[Dispatcher]) -> dict[str, str]:
    """One brain that refuses us, shown among the environments, does not stop the others."""
    states = {"egress": "" if registry.attached else "no proxy runs"}
    refused = [dispatcher.state == "refused" for dispatcher in dispatchers]
    for number, dispatcher in enumerate(dispatchers, 1):
        states[f"brain {number}"] = dispatcher.reason if all(refused) else ""
    return states


def _tell_addresses(layout: Layout, result: Running, stack: AsyncExitStack) -> None:
    """Written last: who finds the file finds a control plane that serves."""
    stack.callback(layout.addresses.unlink, missing_ok=True)
    beside = layout.addresses.with_suffix(".new")
    beside.write_text(json.dumps(result.addresses()) + "\n")
    beside.rename(layout.addresses)


def now() -> datetime:
    """Return the time: the one clock that the composition root hands out."""
    return datetime.now(UTC)  # noqa: TID251  the composition root has the clock
