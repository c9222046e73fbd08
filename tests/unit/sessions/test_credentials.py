"""Placeholders of a session: stable, withdrawn, the operator's above the session's own."""

from datetime import UTC, datetime

import msgspec
import pytest

from handiwork.model.agent import AgentSettings
from handiwork.model.errors import ConfigError, SecretMissingError
from handiwork.model.placeholder import MAX_PLACEHOLDERS, Credential, Placeholder
from handiwork.model.sandbox import SandboxRecord, SandboxState
from handiwork.model.secret import SealedSecret
from handiwork.model.session import Session, SessionState
from handiwork.sessions.credentials import Credentials, check_variables
from handiwork.testing.store import MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOX = SandboxRecord(
    id="sbx_1",
    session_id="sesn_1",
    agent_id="agent_1",
    tier="namespace",
    image="host",
    state=SandboxState.RUNNING,
    created_at=NOW,
    updated_at=NOW,
)


def sealed(name: str, version: int = 1) -> SealedSecret:
    return SealedSecret(
        name=name,
        version=version,
        hosts=("a.example.org",),
        ephemeral_key=b"e",
        nonce=b"n",
        ciphertext=b"c",
    )


def credential(variable: str, name: str = "vault-key") -> Credential:
    return Credential(variable=variable, sealed=sealed(name))


SESSION = Session(
    id="sesn_1",
    environment_id="env_1",
    state=SessionState.ACTIVE,
    created_at=NOW,
    updated_at=NOW,
)


@pytest.fixture
async def store() -> MemoryStore:
    store = MemoryStore()
    for session_id in ("sesn_1", "sesn_2"):
        await store.sessions.save(msgspec.structs.replace(SESSION, id=session_id))
    return store


@pytest.fixture
def credentials(store: MemoryStore) -> Credentials:
    return Credentials(store)


async def names(credentials: Credentials, box: SandboxRecord = BOX) -> dict[str, str]:
    return {one.variable: one.sealed.name for one in await credentials.standing(box)}


async def text(credentials: Credentials, variable: str, box: SandboxRecord = BOX) -> str:
    (found,) = [one for one in await credentials.standing(box) if one.variable == variable]
    return found.text


async def test_what_a_session_brings_stands_in_its_sandbox(credentials: Credentials) -> None:
    assert await credentials.learn("sesn_1", [credential("A"), credential("B", "other")]) == []
    assert await names(credentials) == {"A": "vault-key", "B": "other"}
    elsewhere = msgspec.structs.replace(BOX, session_id="sesn_2")
    assert await credentials.standing(elsewhere) == ()
    assert await credentials.standing(msgspec.structs.replace(BOX, session_id="")) == ()


async def test_texts_are_random_stable_and_of_one_session(credentials: Credentials) -> None:
    for session in ("sesn_1", "sesn_2"):
        await credentials.learn(session, [credential("A"), credential("B")])
    first = await text(credentials, "A")
    other = await text(credentials, "A", msgspec.structs.replace(BOX, session_id="sesn_2"))
    assert len({first, other, await text(credentials, "B")}) == 3
    await credentials.learn("sesn_1", [Credential(variable="A", sealed=sealed("vault-key", 2))])
    (found,) = await credentials.standing(BOX)
    assert (found.text, found.sealed.version) == (first, 2)
    await credentials.learn("sesn_1", [])
    assert await credentials.standing(BOX) == ()
    await credentials.learn("sesn_1", [credential("A")])
    assert await text(credentials, "A") == first


async def test_the_operators_variables_come_first(
    credentials: Credentials, store: MemoryStore
) -> None:
    await store.secrets.put(sealed("github"), NOW)
    await credentials.learn("sesn_1", [credential("A"), credential("B")])
    await store.agents.put(
        AgentSettings(
            environment_id="env_1",
            agent_id="agent_1",
            variables={"A": "github", "C": "github"},
            updated_at=NOW,
        )
    )
    assert await names(credentials) == {"A": "github", "B": "vault-key", "C": "github"}
    assert await text(credentials, "C") == await text(credentials, "C")


async def test_an_operators_secret_that_is_not_set_is_named(
    credentials: Credentials, store: MemoryStore
) -> None:
    await store.agents.put(
        AgentSettings(
            environment_id="env_1", agent_id="agent_1", variables={"A": "gone"}, updated_at=NOW
        )
    )
    with pytest.raises(SecretMissingError, match="the secret 'gone' that a variable"):
        await credentials.standing(BOX)


async def test_another_environments_agent_of_the_same_id_gets_no_placeholder(
    credentials: Credentials, store: MemoryStore
) -> None:
    await store.secrets.put(sealed("github"), NOW)
    await store.agents.put(
        AgentSettings(
            environment_id="env_1", agent_id="agent_1", variables={"A": "github"}, updated_at=NOW
        )
    )
    hostile = msgspec.structs.replace(SESSION, id="sesn_2", environment_id="env_2")
    await store.sessions.save(hostile)
    assert await names(credentials) == {"A": "github"}
    assert await names(credentials, msgspec.structs.replace(BOX, session_id="sesn_2")) == {}


@pytest.mark.parametrize(
    "variable", ["PATH", "SSL_CERT_FILE", "LD_PRELOAD", "ANTHROPIC_API_KEY", "1X", "A B", ""]
)
async def test_names_that_a_sandbox_needs_are_left_out(
    credentials: Credentials, variable: str
) -> None:
    (refused,) = await credentials.learn("sesn_1", [credential(variable), credential("GOOD")])
    assert repr(variable) in refused
    assert await names(credentials) == {"GOOD": "vault-key"}
    with pytest.raises(ConfigError):
        check_variables([variable])


async def test_one_name_twice_and_too_many(credentials: Credentials) -> None:
    many = [credential(f"V{number}") for number in range(MAX_PLACEHOLDERS + 2)]
    refused = await credentials.learn("sesn_1", [many[0], *many])
    assert ["twice" in refused[0], "too many" in refused[1], len(refused)] == [True, True, 3]
    assert len(await credentials.standing(BOX)) == MAX_PLACEHOLDERS


async def test_a_placeholder_does_not_show_the_secret(credentials: Credentials) -> None:
    await credentials.learn("sesn_1", [credential("A")])
    (found,) = await credentials.standing(BOX)
    assert isinstance(found, Placeholder)
    assert "ciphertext" not in repr(found)
