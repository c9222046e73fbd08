"""Every kind of injection through a real proxy: set once, the client's own copy gone, masked."""

import asyncio
import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest

from egress_world import HOST, SECRET, World, grant, world
from handiwork.egress.sigv4 import Signer
from handiwork.model.injection import (
    BasicInjection,
    BearerInjection,
    CookieInjection,
    Injection,
    QueryInjection,
    SigV4Injection,
)
from handiwork.model.policy import AllowRule, Match

QUERY = QueryInjection(name="key", value="${secret:key}")
COOKIE = CookieInjection(name="sid", value="${secret:key}")


@pytest.fixture
async def here(tmp_path: Path):
    async with world(tmp_path) as made:
        yield made


async def asked(here: World, injection: Injection, target: str = "/", extra: str = "") -> bytes:
    """Return the masked answer of an upstream that echoes what it was sent."""
    inject = here.service(inject=(injection,))
    client = await here.tls(await here.open(grant(inject, secrets=(await here.sealed(),))))
    status, _, body = await client.request(target, extra=extra)
    assert status == 200
    (record,) = await here.records(1, allowed=True)
    assert record.injected == ("key",)
    assert SECRET not in record.path
    assert record.masked >= 1
    return body


async def test_bearer_and_basic_replace_the_clients_credentials(here: World):
    body = await asked(here, BearerInjection(secret="key"), extra="AUTHORIZATION: Bearer mine\r\n")
    assert here.upstream.seen[0].values("authorization") == [f"Bearer {SECRET}"]
    assert SECRET.encode() not in body


async def test_basic_credentials_are_not_told_in_base64_either(here: World):
    injection = BasicInjection(username="x-access-token", secret="key")
    body = await asked(here, injection, extra="authorization: Basic bWluZTptaW5l\r\n")
    pair = base64.b64encode(f"x-access-token:{SECRET}".encode())
    assert here.upstream.seen[0].values("authorization") == [f"Basic {pair.decode()}"]
    assert pair not in body
    assert base64.b64encode(SECRET.encode())[:-4] not in body


async def test_a_query_parameter_stands_once_and_is_in_no_record(here: World):
    body = await asked(here, QUERY, "/p?a=1&k%65y=mine&KEY=mine&b=2;key=mine&c=3")
    assert here.upstream.seen[0].target == f"/p?a=1&c=3&key={SECRET}"
    assert SECRET.encode() not in body


async def test_a_cookie_stands_beside_the_clients_own(here: World):
    extra = "Cookie: a=1; SID=mine\r\ncookie: b=2; s%69d=mine\r\nConnection: cookie\r\n"
    body = await asked(here, COOKIE, extra=extra)
    assert here.upstream.seen[0].values("cookie") == [f"a=1; b=2; sid={SECRET}"]
    assert SECRET.encode() not in body


async def test_requests_alike_on_one_connection_each_have_their_own_target(here: World):
    """What is sent of a head that comes again is remembered; its target is not."""
    inject = here.service(inject=(QUERY, COOKIE))
    client = await here.tls(await here.open(grant(inject, secrets=(await here.sealed(),))))
    for target in ("/one", "/two?x=1", "/two?x=1&key=mine"):
        assert (await client.request(target, extra="cookie: a=1\r\n"))[0] == 200
    tail = f"key={SECRET}"
    assert [seen.target for seen in here.upstream.seen] == [
        f"/one?{tail}",
        f"/two?x=1&{tail}",
        f"/two?x=1&{tail}",
    ]
    assert all(seen.values("cookie") == [f"a=1; sid={SECRET}"] for seen in here.upstream.seen)


@pytest.mark.parametrize("injection", [BearerInjection(secret="key"), QUERY, COOKIE])
async def test_a_host_that_the_secret_is_not_bound_to_gets_nothing(
    here: World, injection: Injection
):
    """As after a redirect: the client asks again elsewhere, and the rule of that place decides."""
    elsewhere = "other.example.org"
    rules = (here.service(inject=(injection,)), here.service(elsewhere, rule="other"))
    way = await here.open(grant(*rules, secrets=(await here.sealed(),)))
    assert (await (await here.tls(way)).request("/"))[0] == 200
    client = await here.tls(way, name=elsewhere)
    assert (await client.request("/", host=elsewhere))[0] == 200
    second = here.upstream.seen[1]
    assert SECRET not in second.target + repr(second.headers)
    wide = here.service(HOST, elsewhere, inject=(injection,))
    way = await here.open(grant(wide, secrets=(await here.sealed(),)))
    client = await here.tls(way, name=elsewhere)
    assert (await client.request("/", host=elsewhere))[0] == 403
    assert len(here.upstream.seen) == 2


async def test_a_port_that_the_rule_does_not_name_gets_nothing(here: World):
    inject = here.service(inject=(BearerInjection(secret="key"),), ports=(8443,))
    other = AllowRule(id="deny-rest", match=Match(hosts=("unused.example.com",)))
    way = await here.open(grant(inject, other, secrets=(await here.sealed(),)))
    client = await here.tls(way)
    assert (await client.request("/"))[0] == 403
    assert here.upstream.seen == []


async def test_requests_are_signed_each_for_itself(here: World):
    injection = SigV4Injection(
        region="eu-west-1", service="s3", access_key_id="id", secret_access_key="key"
    )
    secrets = (await here.sealed(), await here.sealed("id", value="AKIDEXAMPLE00001"))
    way = await here.open(grant(here.service(inject=(injection,)), secrets=secrets))
    client = await here.tls(way)
    spoof = "Authorization: AWS4-HMAC-SHA256 mine\r\nX-Amz-Date: 20200101T000000Z\r\n"
    for target in ("/one", "/two"):
        assert (await client.request(target, extra=spoof))[0] == 200
    told = [seen.values("authorization") for seen in here.upstream.seen]
    assert all(len(one) == 1 and "AKIDEXAMPLE00001/" in one[0] for one in told)
    assert told[0] != told[1]
    for seen, (header,) in zip(here.upstream.seen, told, strict=True):
        (stamp,) = seen.values("x-amz-date")
        signer = Signer(
            region="eu-west-1",
            service="s3",
            access_key_id="AKIDEXAMPLE00001",
            secret_access_key=SECRET,
        )
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        again = signer.sign(b"GET", seen.target, HOST.encode(), [], has_body=False, now=at)
        assert dict(again)[b"authorization"].decode() == header
    refused = await client.request("/x?X-Amz-Signature=00")
    assert (refused[0], b"signed by the client" in refused[2]) == (403, True)


async def test_a_new_value_holds_at_once_on_a_connection_that_is_open(here: World):
    rule = here.service(inject=(BearerInjection(secret="key"),))
    way = await here.open(grant(rule, secrets=(await here.sealed(),)))
    client = await here.tls(way)
    assert (await client.request("/"))[0] == 200
    rotated = grant(rule, secrets=(await here.sealed(value="rotated-value-1"),))
    async with asyncio.timeout(1):
        await here.registry.update(way.binding.id, rotated)
        assert (await client.request("/"))[0] == 200
    told = [seen.values("authorization") for seen in here.upstream.seen]
    assert told == [[f"Bearer {SECRET}"], ["Bearer rotated-value-1"]]
