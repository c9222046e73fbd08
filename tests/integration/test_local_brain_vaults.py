"""Vaults through the unmodified SDK, sync and async; the seal opens with the operator's key only."""

import base64

import anthropic
import msgspec
import pytest

from brain_clients import KINDS, brain_client
from brain_process import BrainProcess, script
from handiwork.egress.secrets import Opener
from handiwork.model.ids import DEFAULT_TENANT
from handiwork.model.secret import SealedSecret

VALUE = "ghp_the-real-secret-value"
AUTH = {
    "type": "environment_variable",
    "secret_name": "GITHUB_TOKEN",
    "secret_value": VALUE,
    "networking": {"type": "limited", "allowed_hosts": ["api.github.com", "*.example.com"]},
    "injection_location": {"header": True, "body": False},
}


def started(directory) -> tuple[BrainProcess, Opener]:
    opener = Opener(directory / "keys")
    public = base64.b64encode(opener.public_key(DEFAULT_TENANT)).decode()
    return BrainProcess.start(directory / "brain.db", seal_key=public), opener


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    brain, opener = started(tmp_path_factory.mktemp("brain"))
    with brain:
        yield brain, opener


@pytest.fixture
def brain(world):
    return world[0]


@pytest.fixture(params=KINDS)
async def client(brain, request):
    async with brain_client(brain, request.param) as made:
        yield made


async def session_with(client, brain, *vaults: str):
    agent = await client(
        lambda sdk: sdk.beta.agents.create(name="a", model="scripted", system=script({"say": "x"}))
    )
    return await client(
        lambda sdk: sdk.beta.sessions.create(
            agent=agent.id, environment_id=brain.environment_id, vault_ids=list(vaults)
        )
    )


async def given_to(brain, session_id: str) -> list[dict]:
    """Return what the hands of a session are given."""
    async with brain_client(brain, "async", brain.environment_key) as hands:
        path = f"/v1/sessions/{session_id}/credentials"
        headers = {"anthropic-beta": "managed-agents-2026-04-01"}
        read = await hands.sdk.get(path, cast_to=object, options={"headers": headers})
        return read["data"]


async def test_vaults_are_managed(client):
    made = await client(lambda sdk: sdk.beta.vaults.create(display_name="v", metadata={"a": "1"}))
    changed = await client(
        lambda sdk: sdk.beta.vaults.update(made.id, display_name="w", metadata={"a": None})
    )
    assert (changed.display_name, changed.metadata) == ("w", {})
    assert await client(lambda sdk: sdk.beta.vaults.retrieve(made.id)) == changed
    assert made.id in [v.id for v in await client.all(lambda sdk: sdk.beta.vaults.list(limit=1))]
    assert (await client(lambda sdk: sdk.beta.vaults.archive(made.id))).archived_at
    assert (await client(lambda sdk: sdk.beta.vaults.delete(made.id))).type == "vault_deleted"
    with pytest.raises(anthropic.NotFoundError):
        await client(lambda sdk: sdk.beta.vaults.retrieve(made.id))


async def test_a_credential_reaches_the_hands_sealed(world, client):
    brain, opener = world
    vault = (await client(lambda sdk: sdk.beta.vaults.create(display_name="v"))).id
    made = await client(lambda sdk: sdk.beta.vaults.credentials.create(vault, auth=AUTH))
    assert made.auth.secret_name == "GITHUB_TOKEN"
    session = await session_with(client, brain, vault)
    [given] = await given_to(brain, session.id)
    assert (given["variable"], given["locations"]) == ("GITHUB_TOKEN", ["header"])
    assert given["allowed_hosts"] == ["api.github.com", "*.example.com"]
    sealed = msgspec.convert(given["sealed"], SealedSecret)
    assert opener.open(sealed).reveal() == VALUE
    listed = await client.all(lambda sdk: sdk.beta.vaults.credentials.list(vault))
    assert [each.id for each in listed] == [made.id]
    archived = await client(
        lambda sdk: sdk.beta.vaults.credentials.archive(made.id, vault_id=vault)
    )
    assert archived.archived_at
    assert await given_to(brain, session.id) == []
    gone = await client(lambda sdk: sdk.beta.vaults.credentials.delete(made.id, vault_id=vault))
    assert gone.type == "vault_credential_deleted"


async def test_the_value_is_nowhere_on_the_disk_or_in_the_log(tmp_path):
    brain, opener = started(tmp_path)
    with brain:
        async with brain_client(brain, "async") as client:
            vault = (await client(lambda sdk: sdk.beta.vaults.create(display_name="v"))).id
            await client(lambda sdk: sdk.beta.vaults.credentials.create(vault, auth=AUTH))
            with pytest.raises(anthropic.BadRequestError) as refused:
                await client(
                    lambda sdk: sdk.beta.vaults.credentials.create(
                        vault, auth={**AUTH, "type": "static_bearer"}
                    )
                )
            assert VALUE not in str(refused.value)
            session = await session_with(client, brain, vault)
            brain.kill()
            brain.restart()
            [given] = await given_to(brain, session.id)
    kept = [path for path in tmp_path.iterdir() if path.is_file()]
    assert len(kept) >= 2
    assert all(VALUE.encode() not in path.read_bytes() for path in kept)
    sealed = msgspec.convert(given["sealed"], SealedSecret)
    assert opener.open(sealed).reveal() == VALUE
