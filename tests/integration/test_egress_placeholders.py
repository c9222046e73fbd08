"""Placeholders through a real proxy: a value where its host is, mere text elsewhere, no way for others'."""

import json
from pathlib import Path

import msgspec
import pytest

from egress_world import HOST, SECRET, World, grant, world
from handiwork.model.egress import EgressGrant
from handiwork.model.injection import HeaderInjection
from handiwork.model.placeholder import ENTROPY_BYTES, Placeholder, new_placeholder

MINE = new_placeholder(b"m" * ENTROPY_BYTES)
FOREIGN = new_placeholder(b"f" * ENTROPY_BYTES)
OTHER_HOST = "other.example.org"


@pytest.fixture
async def here(tmp_path: Path):
    async with world(tmp_path) as made:
        yield made


async def standing(
    here: World, *, hosts: tuple[str, ...] = (HOST,), tenant: str = "default", **match: object
) -> EgressGrant:
    """Return a grant for both hosts whose placeholder stands for the secret."""
    sealed = await here.sealed("vault-key", hosts=hosts)
    if tenant != "default":
        sealed = msgspec.structs.replace(sealed, tenant=tenant)
    permitted = grant(here.service(HOST, OTHER_HOST, **match))
    placeholder = Placeholder(variable="TOKEN", text=MINE, sealed=sealed)
    return msgspec.structs.replace(permitted, placeholders=(placeholder,))


async def test_a_header_to_the_secrets_host_carries_the_value(here: World):
    client = await here.tls(await here.open(await standing(here)))
    for _ in range(2):
        status, _, body = await client.request(
            "/", extra=f"authorization: Bearer {MINE}\r\nx-two: {MINE}-{MINE}\r\n"
        )
        assert status == 200
        assert SECRET.encode() not in body
    for seen in here.upstream.seen:
        assert seen.values("authorization") == [f"Bearer {SECRET}"]
        assert seen.values("x-two") == [f"{SECRET}-{SECRET}"]
        assert MINE not in str(seen.headers)
    assert len(here.upstream.seen) == 2
    records = await here.records(2, allowed=True)
    assert {record.injected for record in records} == {("vault-key",)}
    assert all(record.masked >= 3 for record in records)


async def test_elsewhere_it_is_mere_text(here: World):
    client = await here.tls(await here.open(await standing(here)), name=OTHER_HOST)
    status, _, body = await client.request("/", host=OTHER_HOST, extra=f"x-key: {MINE}\r\n")
    assert status == 200
    assert here.upstream.seen[0].values("x-key") == [MINE]
    assert SECRET.encode() not in body
    (record,) = await here.records(1, allowed=True)
    assert record.injected == ()


async def test_paths_and_bodies_are_left_alone(here: World):
    client = await here.tls(await here.open(await standing(here)))
    status, _, _ = await client.request(f"/{MINE}?k={MINE}", method="POST", body=MINE.encode())
    assert status == 200
    seen = here.upstream.seen[0]
    assert seen.target == f"/{MINE}?k={MINE}"
    assert SECRET not in str(seen)


@pytest.mark.parametrize(
    ("target", "extra"),
    [
        ("/", f"x-key: {FOREIGN}\r\n"),
        ("/", f"authorization: Bearer {MINE}\r\nx-key: a{FOREIGN}b\r\n"),
        ("/", f"{FOREIGN}: 1\r\n"),
        (f"/{FOREIGN}", ""),
        (f"/?k={FOREIGN}", ""),
    ],
    ids=["header", "beside-ours", "header-name", "path", "query"],
)
async def test_one_of_another_session_does_not_leave(here: World, target: str, extra: str):
    client = await here.tls(await here.open(await standing(here)))
    status, headers, body = await client.request(target, extra=extra)
    assert (status, headers["x-handiwork-rule"]) == (403, "placeholder")
    assert b"another session" in body
    assert here.upstream.seen == []
    (record,) = await here.records(1, allowed=False)
    assert record.rules[-1] == "placeholder"
    assert (await client.request("/"))[0] == 200


async def test_it_is_worth_nothing_on_another_sessions_way_out(here: World):
    """The control: the same request passes where the placeholder belongs."""
    ours, theirs = await here.open(await standing(here)), await here.open(grant(here.service()))
    extra = f"authorization: Bearer {MINE}\r\n"
    assert (await (await here.tls(theirs)).request("/", extra=extra))[0] == 403
    assert here.upstream.seen == []
    assert (await (await here.tls(ours)).request("/", extra=extra))[0] == 200
    assert here.upstream.seen[0].values("authorization") == [f"Bearer {SECRET}"]


async def test_the_policy_decides_before_it(here: World):
    client = await here.tls(await here.open(await standing(here, paths=("/open/*",))))
    status, _, _ = await client.request("/closed", extra=f"x-key: {MINE}\r\n")
    assert status == 403
    assert here.upstream.seen == []


async def test_it_stands_beside_an_injection(here: World):
    inject = (HeaderInjection(header="authorization", value="Bearer ${secret:key}"),)
    placed = await here.sealed("vault-key", value="vault-0123456789")
    granted = msgspec.structs.replace(
        grant(here.service(inject=inject), secrets=(await here.sealed(),)),
        placeholders=(Placeholder(variable="TOKEN", text=MINE, sealed=placed),),
    )
    client = await here.tls(await here.open(granted))
    extra = f"authorization: {MINE}\r\nx-key: {MINE}\r\n"
    status, _, body = await client.request("/", extra=extra)
    assert status == 200
    seen = here.upstream.seen[0]
    assert seen.values("authorization") == [f"Bearer {SECRET}"]
    assert seen.values("x-key") == ["vault-0123456789"]
    assert b"vault-0123456789" not in body
    assert SECRET.encode() not in body


async def test_a_withdrawn_one_stops_at_once(here: World):
    way = await here.open(await standing(here))
    client = await here.tls(way)
    extra = f"x-key: {MINE}\r\n"
    assert (await client.request("/", extra=extra))[0] == 200
    await here.registry.update(way.binding.id, grant(here.service(HOST, OTHER_HOST)))
    status, headers, _ = await client.request("/", extra=extra)
    assert (status, headers["x-handiwork-rule"]) == (403, "placeholder")
    assert len(here.upstream.seen) == 1


async def test_another_tenants_secret_does_not_open(here: World):
    client = await here.tls(await here.open(await standing(here, tenant="other")))
    status, _, body = await client.request("/", extra=f"x-key: {MINE}\r\n")
    assert status == 403
    assert b"is not there" in body
    assert here.upstream.seen == []


async def test_it_is_never_sent_in_clear(here: World):
    client, status = await here.captured(
        await here.open(await standing(here, schemes=("http",))), port=80
    )
    assert status == 0
    status, _, body = await client.request("/", extra=f"x-key: {MINE}\r\n")
    assert status == 403
    assert b"never sent in clear" in body


async def test_what_stands_for_it_is_not_told_back(here: World):
    client = await here.tls(await here.open(await standing(here)))
    _, _, body = await client.request("/", extra=f"x-key: {MINE}\r\n")
    shown = json.loads(body)
    assert SECRET not in str(shown)
