"""What every boundary promises, on the real registry with a real proxy process."""

from pathlib import Path

import pytest

from egress_world import HOST, World, grant, layer, world
from handiwork.egress.registry import EgressRegistry
from handiwork.model.egress import EgressBinding, EgressGrant
from handiwork.model.errors import ConfigError, ConflictError, NotFoundError
from handiwork.model.injection import HeaderInjection
from handiwork.model.policy import AllowRule, InjectRule, Match


@pytest.fixture
async def here(tmp_path: Path):
    async with world(tmp_path) as made:
        yield made


def binding(number: int = 1) -> EgressBinding:
    return EgressBinding(id=f"egb_contract{number}", kind="sandbox", ca_id=f"ses_contract{number}")


def clashing() -> EgressGrant:
    rule = InjectRule(
        id="one",
        match=Match(hosts=(HOST,)),
        inject=(HeaderInjection(header="authorization", value="x-fixed-value"),),
    )
    return EgressGrant(layers=(layer(rule), layer(rule, scope="tenant", name="other")))


async def test_an_open_socket_serves_what_is_granted(here: World):
    way = await here.open(grant(here.service()))
    client = await here.tls(way)
    assert (await client.request("/"))[0] == 200
    assert way.ca_certificate.startswith("-----BEGIN CERTIFICATE-----")


async def test_no_layers_permit_nothing(here: World):
    way = await here.open(EgressGrant(layers=()))
    client = await here.connect(way)
    assert (await client.request(f"https://{HOST}/"))[0] == 403


async def test_a_bad_grant_opens_nothing(here: World):
    with pytest.raises(ConfigError, match="authorization"):
        await here.registry.open(binding(), clashing())
    assert list((here.directory / "run").iterdir()) == []


async def test_a_bad_update_changes_nothing(here: World):
    way = await here.open(grant(here.service()))
    with pytest.raises(ConfigError):
        await here.registry.update(way.binding.id, clashing())
    assert (await (await here.tls(way)).request("/"))[0] == 200


async def test_an_update_holds_for_the_next_request_on_every_connection(here: World):
    way = await here.open(grant(here.service()))
    client = await here.tls(way)
    assert (await client.request("/"))[0] == 200
    await here.registry.update(way.binding.id, grant())
    assert (await client.request("/"))[0] == 403
    await here.registry.update(way.binding.id, grant(here.service()))
    assert (await client.request("/"))[0] == 200


async def test_close_ends_every_connection_and_the_socket(here: World):
    way = await here.open(grant(here.service()))
    client = await here.tls(way)
    assert (await client.request("/"))[0] == 200
    await here.registry.close(way.binding.id)
    assert await client.ended()
    assert not Path(way.path).exists()
    with pytest.raises(OSError):
        await here.connect(way)


async def test_closing_what_is_not_open_is_no_fault(here: World):
    await here.registry.close("egb_notthere")


async def test_updating_what_is_not_open_is_not_found(here: World):
    with pytest.raises(NotFoundError):
        await here.registry.update("egb_notthere", grant())


async def test_an_id_opens_once(here: World):
    await here.registry.open(binding(), grant())
    with pytest.raises(ConflictError):
        await here.registry.open(binding(), grant())


async def test_seal_keys_are_stable_and_a_tenants_own(here: World):
    one = await here.registry.seal_key("one")
    assert len(one) == 32
    assert await here.registry.seal_key("one") == one
    assert await here.registry.seal_key("other") != one


async def test_the_authority_follows_its_id_and_generation(here: World):
    way = await here.registry.open(binding(1), grant())
    other = await here.registry.open(binding(2), grant())
    assert way.ca_certificate != other.ca_certificate
    await here.registry.close(way.binding.id)
    again = await here.registry.open(binding(1), grant())
    assert again.ca_certificate == way.ca_certificate


async def test_the_registry_is_a_boundary(here: World):
    assert isinstance(here.registry, EgressRegistry)


async def test_the_binding_comes_back_with_its_socket(here: World):
    allowed = grant(AllowRule(id="any", match=Match(hosts=("*",))))
    assert (await here.registry.open(binding(), allowed)).binding == binding()
