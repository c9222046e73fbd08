"""The contract of `store/protocol.py`, on SQLite and on the fake."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handiwork.model.agent import AgentSettings
from handiwork.model.audit import AuditRecord
from handiwork.model.environment import KeptLease
from handiwork.model.errors import ConflictError, NotFoundError
from handiwork.model.language_model import ModelSettings
from handiwork.model.placeholder import KeptPlaceholder
from handiwork.model.policy import AllowRule, DenyRule, Match, Policy
from handiwork.model.run import Cost, Run, RunState
from handiwork.model.sandbox import SandboxRecord, SandboxState
from handiwork.model.secret import SealedSecret
from handiwork.model.session import Session, SessionState, WorkItem
from handiwork.model.tool import ToolCall, text_result
from handiwork.model.webhook import ReceivedWebhook
from handiwork.model.wire import OutputFile
from handiwork.store.protocol import Store
from handiwork.store.sqlite import open_sqlite_store
from handiwork.testing.store import MemoryStore

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
KEY = bytes(range(32))


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[Store]:
    store: Store = (
        MemoryStore()
        if kind == "memory"
        else await open_sqlite_store(folder / "control.db", control_key=KEY)
    )
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture(params=["sqlite", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(request.param, tmp_path) as store:
        yield store


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def session(id: str = "sesn_1", **fields: Any) -> Session:
    defaults: dict[str, Any] = {
        "environment_id": "env_1",
        "state": SessionState.ACTIVE,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Session(id=id, **(defaults | fields))


def sandbox(id: str, **fields: Any) -> SandboxRecord:
    defaults: dict[str, Any] = {
        "tier": "namespace",
        "image": "host",
        "state": SandboxState.RUNNING,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return SandboxRecord(id=id, **(defaults | fields))


def call(id: str = "sevt_1", session_id: str = "sesn_1") -> ToolCall:
    return ToolCall(id=id, session_id=session_id, name="bash", input={"command": "true"})


def audit(id: str, **fields: Any) -> AuditRecord:
    defaults: dict[str, Any] = {
        "at": NOW,
        "binding": "b",
        "kind": "http",
        "allowed": True,
        "rules": ("agent:p/r",),
    }
    return AuditRecord(id=id, **(defaults | fields))


def secret(name: str = "key", version: int = 1) -> SealedSecret:
    return SealedSecret(
        name=name,
        version=version,
        hosts=("api.test",),
        ephemeral_key=b"\0" * 32,
        nonce=b"\1" * 12,
        ciphertext=b"\xff" + bytes([version]),
    )


class TestSessions:
    async def test_save_replaces(self, store: Store) -> None:
        await store.sessions.save(session(title="a"))
        await store.sessions.save(session(title="b", state=SessionState.LOST))
        assert await store.sessions.get("sesn_1") == session(title="b", state=SessionState.LOST)
        assert len(await store.sessions.list()) == 1

    async def test_missing(self, store: Store) -> None:
        with pytest.raises(NotFoundError, match="sesn_none"):
            await store.sessions.get("sesn_none")

    async def test_list_newest_first_by_state(self, store: Store) -> None:
        for n in range(4):
            state = SessionState.SLEEPING if n % 2 else SessionState.ACTIVE
            await store.sessions.save(session(f"sesn_{n}", created_at=later(n), state=state))
        assert [s.id for s in await store.sessions.list(limit=3)] == ["sesn_3", "sesn_2", "sesn_1"]
        assert [s.id for s in await store.sessions.list(state="sleeping")] == ["sesn_3", "sesn_1"]
        assert (await store.sessions.counts())["sleeping"] == 2

    async def test_events_are_numbered_per_session(self, store: Store) -> None:
        one = await store.sessions.record("sesn_1", "started", {"tier": "namespace"}, NOW)
        two = await store.sessions.record("sesn_1", "tool", {"names": ("a",)}, later(1))
        other = await store.sessions.record("sesn_2", "started", {}, NOW)
        assert (one.sequence, two.sequence, other.sequence) == (1, 2, 1)
        assert two.data == {"names": ["a"]}
        assert list(await store.sessions.events("sesn_1")) == [one, two]
        assert list(await store.sessions.events("sesn_1", after=1)) == [two]
        assert list(await store.sessions.events("sesn_1", limit=1)) == [one]
        assert list(await store.sessions.events("sesn_3")) == []

    async def test_concurrent_events_lose_none(self, store: Store) -> None:
        async with asyncio.TaskGroup() as group:
            for n in range(50):
                group.create_task(store.sessions.record("sesn_1", "k", {"n": n}, NOW))
        events = await store.sessions.events("sesn_1")
        assert [event.sequence for event in events] == list(range(1, 51))
        assert sorted(event.data["n"] for event in events) == list(range(50))


class TestLedger:
    async def test_the_way_of_a_call(self, store: Store) -> None:
        ledger = store.ledger
        started = await ledger.start(call(), NOW)
        assert started.state == "started"
        assert await ledger.get("sesn_1", "sevt_1") == started
        result = text_result(call(), "done", is_error=True)
        await ledger.store("sesn_1", result, later(1))
        stored = await ledger.get("sesn_1", "sevt_1")
        assert stored is not None
        assert (stored.state, stored.result, stored.updated_at) == ("stored", result, later(1))
        assert await ledger.open("sesn_1") == [stored]
        await ledger.settle("sesn_1", "sevt_1", later(2))
        await ledger.settle("sesn_1", "sevt_1", later(3))
        posted = await ledger.get("sesn_1", "sevt_1")
        assert posted is not None
        assert (posted.state, posted.result, posted.updated_at) == ("posted", result, later(2))
        assert await ledger.open("sesn_1") == []

    async def test_starts_once(self, store: Store) -> None:
        await store.ledger.start(call(), NOW)
        with pytest.raises(ConflictError, match="started before"):
            await store.ledger.start(call(), later(1))

    async def test_one_of_many_concurrent_starts_wins(self, store: Store) -> None:
        async def attempt() -> bool:
            try:
                await store.ledger.start(call(), NOW)
            except ConflictError:
                return False
            return True

        async with asyncio.TaskGroup() as group:
            attempts = [group.create_task(attempt()) for _ in range(20)]
        assert sum(task.result() for task in attempts) == 1

    async def test_no_result_twice(self, store: Store) -> None:
        await store.ledger.start(call(), NOW)
        await store.ledger.store("sesn_1", text_result(call(), "first"), NOW)
        with pytest.raises(ConflictError, match="stored"):
            await store.ledger.store("sesn_1", text_result(call(), "second"), NOW)

    async def test_unknown_calls(self, store: Store) -> None:
        assert await store.ledger.get("sesn_1", "sevt_none") is None
        with pytest.raises(NotFoundError):
            await store.ledger.store("sesn_1", text_result(call("sevt_none"), ""), NOW)
        with pytest.raises(NotFoundError):
            await store.ledger.settle("sesn_1", "sevt_none", NOW)

    async def test_posting_needs_a_result(self, store: Store) -> None:
        await store.ledger.start(call(), NOW)
        with pytest.raises(ConflictError):
            await store.ledger.settle("sesn_1", "sevt_1", NOW)

    async def test_refused_keeps_the_reason(self, store: Store) -> None:
        await store.ledger.start(call(), NOW)
        await store.ledger.settle("sesn_1", "sevt_1", later(1), refused="the session ended")
        await store.ledger.settle("sesn_1", "sevt_1", later(2))
        entry = await store.ledger.get("sesn_1", "sevt_1")
        assert entry is not None
        assert (entry.state, entry.reason) == ("refused", "the session ended")

    async def test_two_sessions_may_have_calls_of_one_id(self, store: Store) -> None:
        ours, theirs = call("sevt_1"), call("sevt_1", "sesn_2")
        await store.ledger.start(theirs, NOW)
        await store.ledger.store("sesn_2", text_result(theirs, "theirs"), NOW)
        assert await store.ledger.get("sesn_1", "sevt_1") is None
        await store.ledger.start(ours, NOW)
        await store.ledger.store("sesn_1", text_result(ours, "ours"), NOW)
        await store.ledger.settle("sesn_2", "sevt_1", later(1))
        (entry,) = await store.ledger.open("sesn_1")
        assert (entry.state, entry.result) == ("stored", text_result(ours, "ours"))
        assert await store.ledger.open("sesn_2") == []

    async def test_open_is_oldest_first_and_of_one_session(self, store: Store) -> None:
        await store.ledger.start(call("sevt_b"), NOW)
        await store.ledger.start(call("sevt_a"), later(1))
        await store.ledger.start(call("sevt_c", "sesn_2"), NOW)
        assert [e.tool_use_id for e in await store.ledger.open("sesn_1")] == ["sevt_b", "sevt_a"]


def decided(agent_id: str, **fields: Any) -> AgentSettings:
    settled: dict[str, Any] = {"environment_id": "env_1", "updated_at": NOW}
    return AgentSettings(agent_id=agent_id, **(settled | fields))


class TestAgents:
    async def test_put_get_list(self, store: Store) -> None:
        b, a = decided("agent_b", tier="namespace"), decided("agent_a", policy="p")
        await store.agents.put(b)
        await store.agents.put(a)
        await store.agents.put(changed := decided("agent_b", updated_at=later(1)))
        assert await store.agents.get("env_1", "agent_a") == a
        assert await store.agents.list() == [a, changed]
        assert await store.agents.get("env_1", "agent_none") is None

    async def test_two_environments_may_have_an_agent_of_one_id(self, store: Store) -> None:
        ours, theirs = decided("agent_a"), decided("agent_a", environment_id="env_2", policy="p")
        await store.agents.put(theirs)
        assert await store.agents.get("env_1", "agent_a") is None
        await store.agents.put(ours)
        assert await store.agents.get("env_1", "agent_a") == ours
        assert await store.agents.get("env_2", "agent_a") == theirs
        assert await store.agents.list() == [ours, theirs]

    async def test_settings_without_an_environment_go_when_removed_only(self, store: Store) -> None:
        await store.agents.put(old := decided("agent_a", environment_id=""))
        await store.agents.put(other := decided("agent_b"))
        assert await store.agents.get("", "agent_a") == old
        await store.agents.put(new := decided("agent_a"))
        assert await store.agents.list() == [old, new, other]
        await store.agents.remove("", "agent_a")
        await store.agents.remove("", "agent_b")
        assert await store.agents.list() == [new, other]


def policy(name: str = "web", description: str = "") -> Policy:
    match = Match(hosts=("example.com", "*.example.org"), methods=("GET",), paths=("/v1/*",))
    return Policy(
        name=name,
        description=description,
        rules=(AllowRule(id="a", match=match), DenyRule(id="d", match=match, reason="no")),
    )


class TestPolicies:
    async def test_versions_go_on(self, store: Store) -> None:
        assert await store.policies.put(policy(), NOW) == 1
        assert await store.policies.put(policy(description="2"), later(1)) == 2
        assert await store.policies.get("web") == policy(description="2")
        assert await store.policies.put(policy("api"), later(2)) == 1
        assert await store.policies.list() == [
            (policy("api"), 1, later(2)),
            (policy(description="2"), 2, later(1)),
        ]

    async def test_deleted_is_gone_but_counted(self, store: Store) -> None:
        await store.policies.put(policy(), NOW)
        await store.policies.delete("web")
        with pytest.raises(NotFoundError):
            await store.policies.get("web")
        with pytest.raises(NotFoundError):
            await store.policies.delete("web")
        assert await store.policies.list() == []
        assert await store.policies.put(policy(), NOW) == 2

    async def test_concurrent_versions_differ(self, store: Store) -> None:
        async with asyncio.TaskGroup() as group:
            puts = [group.create_task(store.policies.put(policy(), NOW)) for _ in range(20)]
        assert sorted(put.result() for put in puts) == list(range(1, 21))


class TestSecrets:
    async def test_newest_version_only(self, store: Store) -> None:
        await store.secrets.put(secret(version=1), NOW)
        await store.secrets.put(secret(version=2), later(1))
        await store.secrets.put(secret("other"), NOW)
        assert await store.secrets.sealed(["key", "none"]) == [secret(version=2)]
        [key, other] = await store.secrets.list()
        assert (key.name, key.version, key.hosts) == ("key", 2, ("api.test",))
        assert (key.created_at, key.updated_at) == (NOW, later(1))
        assert other.name == "other"

    @pytest.mark.parametrize("version", [0, 1, 3])
    async def test_versions_follow(self, store: Store, version: int) -> None:
        await store.secrets.put(secret(version=1), NOW)
        with pytest.raises(ConflictError):
            await store.secrets.put(secret(version=version), NOW)

    async def test_delete(self, store: Store) -> None:
        await store.secrets.put(secret(), NOW)
        await store.secrets.delete("key")
        assert await store.secrets.sealed(["key"]) == []
        with pytest.raises(NotFoundError):
            await store.secrets.delete("key")
        await store.secrets.put(secret(version=1), NOW)


class TestAudit:
    async def test_append_and_query(self, store: Store) -> None:
        records = [
            audit("aud_1", session_id="sesn_1"),
            audit("aud_2", session_id="sesn_1", allowed=False, at=later(2), injected=("k",)),
            audit("aud_3", sandbox_id="sbx_1", at=later(1)),
        ]
        await store.audit.append(records, segment="one.jsonl", position=300)
        assert [r.id for r in await store.audit.query()] == ["aud_2", "aud_3", "aud_1"]
        assert await store.audit.query(session_id="sesn_1", allowed=False) == [records[1]]
        assert await store.audit.query(sandbox_id="sbx_1") == [records[2]]
        assert [r.id for r in await store.audit.query(limit=1)] == ["aud_2"]
        assert await store.audit.positions() == {"one.jsonl": 300}

    async def test_reading_a_segment_again_adds_nothing(self, store: Store) -> None:
        await store.audit.append([audit("aud_1")], segment="s", position=10)
        await store.audit.append([audit("aud_1"), audit("aud_2")], segment="s", position=20)
        await store.audit.append([], segment="s", position=30)
        assert len(await store.audit.query()) == 2
        assert await store.audit.positions() == {"s": 30}


class TestSandboxes:
    async def test_save_get_list(self, store: Store) -> None:
        old = sandbox("sbx_old", env={"A": "1"}, metadata={"m": "x"})
        gone = sandbox("sbx_gone", state=SandboxState.GONE, created_at=later(1))
        new = sandbox("sbx_new", created_at=later(2), state=SandboxState.FAILED, reason="why")
        for record in (old, gone, new):
            await store.sandboxes.save(record)
        assert await store.sandboxes.get("sbx_old") == old
        assert await store.sandboxes.list() == [new, old]
        assert await store.sandboxes.list(include_gone=True, limit=2) == [new, gone]
        assert await store.sandboxes.counts() == {
            (one.state.value, one.tier): 1 for one in (old, new)
        }
        with pytest.raises(NotFoundError):
            await store.sandboxes.get("sbx_none")


class TestPlaceholders:
    async def test_put_list_delete(self, store: Store) -> None:
        plain = KeptPlaceholder(variable="B", text="hwph_b")
        full = KeptPlaceholder(variable="A", text="hwph_a", sealed=secret())
        for kept in (plain, full):
            await store.placeholders.put("sesn_1", kept)
        await store.placeholders.put("sesn_2", plain)
        assert await store.placeholders.list("sesn_1") == [full, plain]
        again = KeptPlaceholder(variable="A", text="hwph_a")
        await store.placeholders.put("sesn_1", again)
        assert await store.placeholders.list("sesn_1") == [again, plain]
        await store.placeholders.delete("sesn_1")
        await store.placeholders.delete("sesn_1")
        assert await store.placeholders.list("sesn_1") == []
        assert await store.placeholders.list("sesn_2") == [plain]


def webhook(id: str, seconds: float = 0, **fields: Any) -> ReceivedWebhook:
    return ReceivedWebhook(id=id, kind="session.created", received_at=later(seconds), **fields)


class TestWebhooks:
    async def test_an_id_is_kept_once(self, store: Store) -> None:
        first = webhook("a", data={"id": "sesn_1"})
        bounds: dict[str, Any] = {"keep_from": NOW, "keep_at_most": 10}
        assert await store.webhooks.add(first, **bounds)
        assert not await store.webhooks.add(webhook("a", 5), **bounds)
        assert await store.webhooks.list() == [first]

    async def test_two_at_once_are_one(self, store: Store) -> None:
        async with asyncio.TaskGroup() as group:
            adding = [
                group.create_task(store.webhooks.add(webhook("a"), keep_from=NOW, keep_at_most=10))
                for _ in range(10)
            ]
        assert sorted(task.result() for task in adding) == [False] * 9 + [True]

    async def test_old_ones_and_those_beyond_the_bound_are_dropped(self, store: Store) -> None:
        for n in range(6):
            kept = await store.webhooks.add(webhook(f"w{n}", n), keep_from=NOW, keep_at_most=3)
            assert kept
        assert [one.id for one in await store.webhooks.list()] == ["w5", "w4", "w3"]
        assert [one.id for one in await store.webhooks.list(limit=2)] == ["w5", "w4"]
        await store.webhooks.add(webhook("w6", 6), keep_from=later(5), keep_at_most=3)
        assert [one.id for one in await store.webhooks.list()] == ["w6", "w5"]


def run(id: str, seconds: float = 0, **fields: Any) -> Run:
    return Run(
        id=id,
        session_id=id.replace("run", "sesn"),
        environment_id="env_1",
        agent_id="agent_1",
        timeout_seconds=60,
        created_at=later(seconds),
        updated_at=later(seconds),
        **fields,
    )


class TestRuns:
    async def test_save_get_list(self, store: Store) -> None:
        await store.runs.save(run("run_a", task="one"))
        ended = run(
            "run_a",
            state=RunState.ENDED,
            message="done",
            files=(OutputFile(path="a.txt", size=3, mtime_ns=4),),
            list_cost=Cost(amount="0.01", currency="USD"),
        )
        await store.runs.save(ended)
        await store.runs.save(run("run_b", 1))
        assert await store.runs.get("run_a") == ended
        assert [one.id for one in await store.runs.list()] == ["run_b", "run_a"]
        assert await store.runs.list(limit=1) == [run("run_b", 1)]
        with pytest.raises(NotFoundError, match="run_none"):
            await store.runs.get("run_none")


class TestControlSecrets:
    async def test_put_get(self, store: Store) -> None:
        await store.control_secrets.put("environment/env_1", "sk-1")
        await store.control_secrets.put("environment/env_1", "sk-2 ü")
        assert await store.control_secrets.get("environment/env_1") == "sk-2 ü"
        assert await store.control_secrets.get("none") is None

    async def test_delete(self, store: Store) -> None:
        await store.control_secrets.put("a", "1")
        await store.control_secrets.put("b", "2")
        for _ in range(2):
            await store.control_secrets.delete("a")
        assert await store.control_secrets.get("a") is None
        assert await store.control_secrets.get("b") == "2"


class TestModels:
    async def test_put_get_list_delete(self, store: Store) -> None:
        small = ModelSettings(name="b", kind="openai", base_url="http://x", input_price=0.5)
        large = ModelSettings(name="a", kind="anthropic", base_url="http://y")
        for each in (small, large, msgspec.structs.replace(small, model="m")):
            await store.models.put(each)
        assert [each.name for each in await store.models.list()] == ["a", "b"]
        kept = await store.models.get("b")
        assert kept is not None
        assert (kept.model, kept.input_price) == ("m", 0.5)
        await store.models.delete("b")
        assert await store.models.get("b") is None
        with pytest.raises(NotFoundError):
            await store.models.delete("b")


def lease(work_id: str = "work_1", secret: str | None = "s3cret", **fields: Any) -> KeptLease:
    work = WorkItem(
        id=work_id, environment_id="env_1", kind="session", session_id="sesn_1", secret=secret
    )
    defaults: dict[str, Any] = {
        "last_heartbeat": "2026-11-21T01:40:50.98676+00:00",
        "ttl_seconds": 60.0,
        "beaten_at": NOW,
    }
    return KeptLease(work=work, **(defaults | fields))


class TestLeases:
    async def test_save_replaces_and_list_is_by_work_id(self, store: Store) -> None:
        await store.leases.save(lease("work_2", secret=None))
        await store.leases.save(lease())
        beaten = lease(last_heartbeat="2026-11-21T01:41:20.1Z", beaten_at=later(30))
        await store.leases.save(beaten)
        assert await store.leases.list() == [beaten, lease("work_2", secret=None)]
        assert beaten.lapses_at == later(90)

    async def test_a_lease_that_is_removed_is_gone(self, store: Store) -> None:
        await store.leases.save(lease())
        for _ in range(2):
            await store.leases.remove("env_1", "work_1")
        assert await store.leases.list() == []

    async def test_two_environments_may_have_items_of_one_id(self, store: Store) -> None:
        ours = lease()
        theirs = msgspec.structs.replace(
            ours, work=msgspec.structs.replace(ours.work, environment_id="env_2")
        )
        await store.leases.save(ours)
        await store.leases.save(theirs)
        assert await store.leases.list() == [ours, theirs]
        await store.leases.remove("env_2", "work_1")
        assert await store.leases.list() == [ours]


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["start", "store", "post", "refuse"]),
        st.sampled_from(["sevt_1", "sevt_2", "sevt_3"]),
    ),
    max_size=30,
)


async def moved(store: Store, moves: list[tuple[str, str]]) -> list[Any]:
    """Apply the moves; what each gave, then what is left."""
    seen: list[Any] = []
    for n, (move, id) in enumerate(moves):
        try:
            match move:
                case "start":
                    await store.ledger.start(call(id), later(n))
                case "store":
                    await store.ledger.store("sesn_1", text_result(call(id), str(n)), later(n))
                case "post":
                    await store.ledger.settle("sesn_1", id, later(n))
                case _:
                    await store.ledger.settle("sesn_1", id, later(n), refused="why")
        except (ConflictError, NotFoundError) as error:
            seen.append(type(error))
    seen += [await store.ledger.get("sesn_1", id) for id in ("sevt_1", "sevt_2", "sevt_3")]
    return [*seen, await store.ledger.open("sesn_1")]


@settings(max_examples=40, deadline=None)
@given(moves=MOVES)
def test_any_moves_give_the_same_on_both(moves: list[tuple[str, str]]) -> None:
    async def both() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with (
                opened("sqlite", Path(folder)) as real,
                opened("memory", Path(folder)) as fake,
            ):
                assert await moved(real, moves) == await moved(fake, moves)

    asyncio.run(both())


OF_ANOTHER_TENANT: dict[str, Callable[[Store], Awaitable[Any]]] = {
    "webhook": lambda store: store.webhooks.add(
        webhook("a", tenant="other"), keep_from=NOW, keep_at_most=9
    ),
    "run": lambda store: store.runs.save(run("run_a", tenant="other")),
    "session": lambda store: store.sessions.save(session(tenant="other")),
    "sandbox": lambda store: store.sandboxes.save(sandbox("sbx_1", tenant="other")),
    "agent": lambda store: store.agents.put(
        AgentSettings(agent_id="a", tenant="other", updated_at=NOW)
    ),
    "secret": lambda store: store.secrets.put(
        msgspec.structs.replace(secret(), tenant="other"), NOW
    ),
    "lease": lambda store: store.leases.save(lease(tenant="other")),
}


@pytest.mark.parametrize("noun", OF_ANOTHER_TENANT)
async def test_sqlite_refuses_a_record_of_another_tenant(tmp_path: Path, noun: str) -> None:
    async with opened("sqlite", tmp_path) as store:
        with pytest.raises(ValueError, match="tenant"):
            await OF_ANOTHER_TENANT[noun](store)
