"""Values are sealed at once to the operator's key, bound to their hosts, and forgotten when they end."""

import json

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from sqlalchemy import select

from handiwork.brains.local import vaults as rules
from handiwork.brains.local.errors import WireError
from handiwork.brains.local.paging import page
from handiwork.brains.local.tables import CREDENTIALS
from handiwork.brains.local.vault_shapes import CredentialCreate, CredentialUpdate, VaultCreate
from handiwork.brains.local.vaults import Vaults
from handiwork.model.sealing import associated_data, sealing_key
from handiwork.model.secret import SealedSecret

VALUE = "sk-the-real-secret-value"


def auth(**changes) -> msgspec.Raw:
    given = {
        "type": "environment_variable",
        "secret_name": "TOKEN",
        "secret_value": VALUE,
        "networking": {"type": "limited", "allowed_hosts": ["api.example.com"]},
        **changes,
    }
    return msgspec.Raw(json.dumps(given).encode())


def change_of(**changes) -> CredentialUpdate:
    return CredentialUpdate(
        auth=msgspec.Raw(json.dumps({"type": "environment_variable", **changes}).encode())
    )


@pytest.fixture
def vaults(services):
    return services.vaults


@pytest.fixture
async def vault(vaults):
    return (await vaults.create(VaultCreate(display_name="v")))["id"]


def opened(sealed: dict, private) -> str:
    """Open a value as the egress proxy does."""
    secret = msgspec.convert(sealed, SealedSecret)
    public = private.public_key().public_bytes_raw()
    shared = private.exchange(X25519PublicKey.from_public_bytes(secret.ephemeral_key))
    bound = associated_data(secret.tenant, secret.name, secret.version, secret.hosts)
    key = sealing_key(shared, secret.ephemeral_key, public)
    return key.decrypt(secret.nonce, secret.ciphertext, bound).decode()


async def test_only_the_holder_of_the_private_key_reads_a_value(
    services, vaults, vault, private_key
):
    made = await vaults.create_credential(vault, CredentialCreate(auth=auth()))
    assert "secret_value" not in made["auth"]
    [given] = await vaults.of_session([vault])
    assert (given["variable"], given["locations"]) == ("TOKEN", ["header"])
    assert given["allowed_hosts"] == ["api.example.com"] == given["sealed"]["hosts"]
    assert opened(given["sealed"], private_key) == VALUE
    rows = await services.database.read(lambda each: each.execute(select(CREDENTIALS)).all())
    assert VALUE not in str(rows)


async def test_a_new_value_is_a_new_version_and_new_hosts_need_the_value(
    vaults, vault, private_key
):
    made = await vaults.create_credential(vault, CredentialCreate(auth=auth()))
    other = {"type": "limited", "allowed_hosts": ["other.example.com"]}
    with pytest.raises(WireError, match="bound to its hosts"):
        await vaults.update_credential(vault, made["id"], change_of(networking=other))
    change = change_of(networking=other, secret_value="another-value")
    await vaults.update_credential(vault, made["id"], change)
    [given] = await vaults.of_session([vault])
    assert given["sealed"]["version"] == 2
    assert given["allowed_hosts"] == ["other.example.com"]
    assert opened(given["sealed"], private_key) == "another-value"
    labelled = await vaults.update_credential(
        vault, made["id"], CredentialUpdate(display_name="n", metadata={"a": "1"})
    )
    assert (labelled["display_name"], labelled["metadata"]) == ("n", {"a": "1"})


async def test_what_ended_is_forgotten(services, vaults, vault):
    first = await vaults.create_credential(vault, CredentialCreate(auth=auth()))
    with pytest.raises(WireError, match="already"):
        await vaults.create_credential(vault, CredentialCreate(auth=auth()))
    await vaults.archive_credential(vault, first["id"])
    assert await vaults.of_session([vault]) == []
    with pytest.raises(WireError, match="archived"):
        await vaults.update_credential(vault, first["id"], change_of(secret_value="another-value"))
    second = await vaults.create_credential(vault, CredentialCreate(auth=auth()))
    await vaults.delete_credential(vault, second["id"])
    assert await vaults.of_session([vault]) == []
    await vaults.create_credential(vault, CredentialCreate(auth=auth()))
    await vaults.archive(vault)
    with pytest.raises(WireError, match="archived"):
        await vaults.create_credential(vault, CredentialCreate(auth=auth()))
    kept = await services.database.read(
        lambda each: each.execute(select(CREDENTIALS.c.sealed)).scalars().all()
    )
    assert kept == [None, None]


async def test_the_earlier_vault_wins(vaults, vault):
    other = (await vaults.create(VaultCreate(display_name="o")))["id"]
    for each, host in [(other, "o.test"), (vault, "v.test")]:
        networking = {"type": "limited", "allowed_hosts": [host]}
        await vaults.create_credential(each, CredentialCreate(auth=auth(networking=networking)))
    for order, host in [([vault, other], "v.test"), ([other, vault], "o.test")]:
        [given] = await vaults.of_session(order)
        assert given["allowed_hosts"] == [host]


@pytest.mark.parametrize(
    "changes",
    [
        {"secret_value": "short"},
        {"secret_value": VALUE + "\r\nX: 1"},
        {"networking": {"type": "limited", "allowed_hosts": ["*"]}},
        {"networking": {"type": "limited", "allowed_hosts": ["https://a.test/"]}},
        {"secret_name": "anthropic_api_key"},
    ],
)
async def test_what_cannot_be_sealed_is_refused_without_the_value(vaults, vault, changes):
    with pytest.raises(WireError) as refused:
        await vaults.create_credential(vault, CredentialCreate(auth=auth(**changes)))
    assert refused.value.status == 400
    assert VALUE not in str(refused.value)
    listed = await vaults.credentials(vault, [], page([], limit=20, most=100, order="desc"))
    assert listed["data"] == []


async def test_without_a_key_no_value_is_taken(services, vault):
    keyless = Vaults(
        services.database, services.clock, services.new_id, seal_key=None, entropy=bytes
    )
    with pytest.raises(WireError, match="seal_key"):
        await keyless.create_credential(vault, CredentialCreate(auth=auth()))


async def test_limits_and_missing_things(vaults, vault, monkeypatch):
    monkeypatch.setattr(rules, "MAX_CREDENTIALS", 0)
    with pytest.raises(WireError, match="the most"):
        await vaults.create_credential(vault, CredentialCreate(auth=auth()))
    with pytest.raises(WireError, match="twice"):
        await vaults.check([vault, vault])
    with pytest.raises(WireError, match="does not exist"):
        await vaults.check(["vlt_none"])
    with pytest.raises(WireError, match="does not exist"):
        await vaults.credential(vault, "vcrd_none")
