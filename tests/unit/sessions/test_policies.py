"""Which policies hold for a sandbox, and what they need."""

from datetime import UTC, datetime

import msgspec
import pytest

from handiwork.config import EgressSettings, EnvironmentSettings, SandboxSettings, Settings
from handiwork.model.agent import AgentSettings
from handiwork.model.errors import ConfigError, SecretMissingError
from handiwork.model.injection import HeaderInjection
from handiwork.model.policy import (
    AllowRule,
    InjectRule,
    Match,
    Policy,
    Rule,
    ServiceRule,
    ServiceTarget,
)
from handiwork.model.run import Run
from handiwork.model.sandbox import SIZES, Limits, SandboxRecord, SandboxState
from handiwork.model.secret import SealedSecret
from handiwork.model.session import Session, SessionState
from handiwork.sessions.policies import Layers, PolicyResolver
from handiwork.testing.store import MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MATCH = Match(hosts=("api.example.org",))
INJECT = InjectRule(
    id="key", match=MATCH, inject=(HeaderInjection(header="authorization", value="${secret:key}"),)
)
SETTINGS = Settings(
    egress=EgressSettings(policy="house"),
    sandbox=SandboxSettings(policy="plain"),
    environments=(EnvironmentSettings(id="env_1", key_file="", policy="env", tier="gvisor"),),
)


def record(*, session: bool = True, policy: str = "") -> SandboxRecord:
    return SandboxRecord(
        id="sbx_1",
        session_id="sesn_1" if session else "",
        agent_id="agent_1" if session else "",
        tier="namespace",
        image="host",
        policy=policy,
        state=SandboxState.RUNNING,
        created_at=NOW,
        updated_at=NOW,
    )


@pytest.fixture
async def store() -> MemoryStore:
    store = MemoryStore()
    await store.agents.put(
        AgentSettings(
            environment_id="env_1",
            agent_id="agent_1",
            policy="agents",
            tier="microvm",
            updated_at=NOW,
        )
    )
    await store.sessions.save(
        Session(
            id="sesn_1",
            environment_id="env_1",
            agent_id="agent_1",
            state=SessionState.ACTIVE,
            created_at=NOW,
            updated_at=NOW,
        )
    )
    return store


async def put(store: MemoryStore, name: str, *rules: Rule) -> None:
    await store.policies.put(Policy(name=name, rules=rules), NOW)


async def test_layers_of_a_session_and_of_a_sandbox_without_one(store: MemoryStore) -> None:
    resolver = PolicyResolver(store, SETTINGS)
    layers = await resolver.layers(record())
    assert layers.names == (("global", "house"), ("environment", "env"), ("agent", "agents"))
    assert "env" in layers
    assert "other" not in layers
    own = await resolver.layers(record(session=False, policy="mine"))
    assert own.names == (("global", "house"), ("session", "mine"))
    plain = await resolver.layers(record(session=False))
    assert plain.names == (("global", "house"), ("session", "plain"))


async def test_the_tier_is_the_agents_else_the_environments_else_the_default(
    store: MemoryStore,
) -> None:
    resolver = PolicyResolver(store, SETTINGS)
    assert await resolver.tier("env_1", "agent_1") == "microvm"
    assert await resolver.tier("env_1", "agent_2") == "gvisor"
    assert await resolver.tier("env_2", "") == "namespace"
    assert resolver.environment("env_1") is SETTINGS.environments[0]


async def test_image_and_limits_are_the_agents_else_the_environments() -> None:
    store = MemoryStore()
    environments = {"env_1": EnvironmentSettings(id="env_1", image="of-env")}
    policies = PolicyResolver(store, SETTINGS, environments)
    assert await policies.machine("env_1", "agent_1") == ("of-env", None)
    assert await policies.machine("env_2", "agent_1") == ("", None)
    decided = AgentSettings(
        environment_id="env_1", agent_id="agent_1", size="small", updated_at=NOW
    )
    await store.agents.put(decided)
    assert await policies.machine("env_1", "agent_1") == ("of-env", SIZES["small"])
    exact = Limits(memory_mib=300)
    await store.agents.put(msgspec.structs.replace(decided, size="", image="mine", limits=exact))
    assert await policies.machine("env_1", "agent_1") == ("mine", exact)
    assert await policies.machine("env_2", "agent_1") == ("", None)


async def test_another_environments_agent_of_the_same_id_has_none_of_it(
    store: MemoryStore,
) -> None:
    session = await store.sessions.get("sesn_1")
    hostile = msgspec.structs.replace(session, id="sesn_2", environment_id="env_2")
    await store.sessions.save(hostile)
    resolver = PolicyResolver(store, SETTINGS)
    layers = await resolver.layers(msgspec.structs.replace(record(), session_id="sesn_2"))
    assert layers.names == (("global", "house"),)
    assert await resolver.tier("env_2", "agent_1") == "namespace"


async def test_a_run_chooses_for_its_own_session_and_for_no_other(store: MemoryStore) -> None:
    run = Run(
        id="run_1",
        session_id="sesn_1",
        environment_id="env_1",
        agent_id="agent_1",
        tier="isolate",
        policy="runs",
        timeout_seconds=60,
        created_at=NOW,
        updated_at=NOW,
    )
    resolver = PolicyResolver(store, SETTINGS)
    without = await resolver.layers(record())
    await store.runs.save(run)
    assert (await resolver.layers(record())).names == (*without.names, ("session", "runs"))
    assert await resolver.tier("env_1", "agent_1", "sesn_1") == "isolate"
    # The same run's id follows from these; they are another brain's sessions.
    assert await resolver.tier("env_2", "agent_1", "sesn_1") == "namespace"
    assert await resolver.tier("env_1", "agent_1", "other_1") == "microvm"
    await store.runs.save(msgspec.structs.replace(run, session_id="other_1"))
    assert await resolver.layers(record()) == without


async def test_a_grant_has_the_policies_and_the_secrets_they_name(store: MemoryStore) -> None:
    resolver = PolicyResolver(store, SETTINGS)
    service = ServiceRule(
        id="s",
        match=Match(hosts=("db.example.org",)),
        service=ServiceTarget(name="db", address="127.0.0.1", port=1),
        inject=(HeaderInjection(header="x-db", value="${secret:db}"),),
    )
    await put(store, "a", INJECT, service)
    await put(store, "b", AllowRule(id="all", match=Match(hosts=("*",))))
    secrets = [
        SealedSecret(
            name=name,
            version=1,
            hosts=("*.example.org",),
            ephemeral_key=b"",
            nonce=b"",
            ciphertext=b"",
        )
        for name in ("db", "key", "other")
    ]
    for secret in secrets:
        await store.secrets.put(secret, NOW)
    grant = await resolver.grant(Layers(names=(("global", "b"), ("agent", "a"))))
    assert [layer.scope for layer in grant.layers] == ["global", "agent"]
    assert sorted(secret.name for secret in grant.secrets) == ["db", "key"]


async def test_what_is_missing_is_named(store: MemoryStore) -> None:
    resolver = PolicyResolver(store, SETTINGS)
    with pytest.raises(ConfigError, match="the agent policy 'agents' does not exist"):
        await resolver.grant(Layers(names=(("agent", "agents"),)))
    await put(store, "agents", INJECT)
    with pytest.raises(SecretMissingError, match="the secret 'key' that a policy names is not set"):
        await resolver.grant(Layers(names=(("agent", "agents"),)))


async def test_policies_that_contradict_are_refused(store: MemoryStore) -> None:
    resolver = PolicyResolver(store, SETTINGS)
    plain = (HeaderInjection(header="authorization", value="x"),)
    for name in ("a", "b"):
        await put(store, name, InjectRule(id=name, match=MATCH, inject=plain))
    with pytest.raises(ConfigError):
        await resolver.grant(Layers(names=(("global", "a"), ("agent", "b"))))


async def test_without_any_layer_nothing_is_permitted(store: MemoryStore) -> None:
    resolver = PolicyResolver(store, Settings())
    layers = await resolver.layers(record(session=False))
    assert (await resolver.grant(layers)).layers == ()
