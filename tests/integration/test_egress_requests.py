"""Requests through a real proxy to a real TLS upstream: allowed, denied, injected, masked."""

import base64
import json
from pathlib import Path

import pytest

from egress_world import HOST, SECRET, World, answer, grant, world
from handiwork.model.egress import EgressGrant
from handiwork.model.injection import HeaderInjection
from handiwork.model.policy import AllowRule, DenyRule, InjectRule, Match

BEARER = (HeaderInjection(header="authorization", value="Bearer ${secret:key}"),)


@pytest.fixture
async def here(tmp_path: Path):
    async with world(tmp_path) as made:
        yield made


async def test_a_permitted_request_arrives_as_it_was_judged(here: World):
    client = await here.tls(await here.open(grant(here.service(paths=("/b/*",)))))
    status, _, body = await client.request("/a/../b//%7Ec?q=%2e", extra="x-mine: 1\r\n")
    assert status == 200
    assert json.loads(body)["target"] == "/b/~c?q=%2e"
    assert here.upstream.seen[0].values("x-mine") == ["1"]
    assert here.upstream.seen[0].values("host") == [HOST]


async def test_a_denied_request_names_its_rule_and_is_recorded(here: World):
    deny = DenyRule(id="no-admin", match=Match(hosts=(HOST,), paths=("/admin*",)), reason="not you")
    way = await here.open(grant(deny, here.service()))
    client = await here.tls(way)
    status, headers, body = await client.request("/admin/x?token=abc")
    assert (status, headers["x-handiwork-rule"]) == (403, "session:test/no-admin")
    assert body == b"handiwork: blocked by session:test/no-admin: not you\n"
    assert (await client.request("/other"))[0] == 200
    (record,) = await here.records(1, allowed=False)
    assert (record.rules, record.reason, record.path, record.status) == (
        ("session:test/no-admin",),
        "not you",
        "/admin/x",
        403,
    )
    assert record.sandbox_id == way.binding.sandbox_id
    assert [seen.target for seen in here.upstream.seen] == ["/other"]


async def test_a_denied_name_is_told_why_inside_tls(here: World):
    client = await here.tls(await here.open(grant(here.service())), name="evil.example.com")
    status, headers, body = await client.request("/", host="evil.example.com")
    assert (status, headers["x-handiwork-rule"]) == (403, "session:test/default")
    assert b"evil.example.com" in body


async def test_distinct_denied_names_are_capped(tmp_path: Path):
    async with world(tmp_path, max_denied_names=3) as here:
        way = await here.open(grant(here.service()))
        for number in range(3):
            await here.tls(way, name=f"n{number}.example.com")
        with pytest.raises(OSError):
            await here.tls(way, name="n3.example.com")
        await here.tls(way, name="n0.example.com")
        assert (await (await here.tls(way)).request("/"))[0] == 200


async def test_a_secret_is_injected_and_never_seen(here: World):
    way = await here.open(await here.injecting())
    client = await here.tls(way)
    spoof = "Authorization: Bearer mine\r\nauthorization: again\r\nConnection: authorization\r\n"
    status, _, body = await client.request("/", extra=spoof)
    assert status == 200
    assert here.upstream.seen[0].values("authorization") == [f"Bearer {SECRET}"]
    assert here.upstream.seen[0].values("accept-encoding") == ["identity"]
    assert SECRET.encode() not in body
    (record,) = await here.records(1, allowed=True)
    assert (record.injected, record.masked, record.status) == (("key",), 1, 200)
    assert (record.bytes_in, record.address) == (len(body), "127.0.0.1")


@pytest.mark.parametrize(
    "shown",
    [SECRET.encode(), base64.b64encode(SECRET.encode()), base64.b64encode(b"u:" + SECRET.encode())],
    ids=["raw", "base64", "basic"],
)
@pytest.mark.parametrize("how", ["length", "chunks", "end", "header"])
async def test_what_was_injected_does_not_come_back(here: World, shown: bytes, how: str):
    way = await here.open(await here.injecting())
    pieces = {
        "length": b"content-length: %d\r\n\r\n%b" % (len(shown) + 4, b"ab" + shown + b"cd"),
        "chunks": b"transfer-encoding: chunked\r\n\r\n"
        + b"".join(b"1\r\n%c\r\n" % byte for byte in shown)
        + b"0\r\nx-trailer: "
        + shown
        + b"\r\n\r\n",
        "end": b"connection: close\r\n\r\nab" + shown,
        "header": b"x-echo: %b\r\ncontent-length: 0\r\n\r\n" % shown,
    }
    here.upstream.respond = answer(b"HTTP/1.1 200 OK\r\n" + pieces[how], close=how == "end")
    client = await here.tls(way)
    status, headers, body = await client.request("/")
    everything = body + str(headers).encode()
    assert status == 200
    assert b"***" in everything
    assert shown[6:-4] not in everything
    (record,) = await here.records(1, allowed=True)
    assert record.masked >= 1


async def test_without_injection_the_same_bytes_pass(here: World):
    """The control of the test above: it is the mask that takes them out."""
    here.upstream.respond = answer(
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(SECRET), SECRET.encode())
    )
    client = await here.tls(await here.open(grant(here.service())))
    assert (await client.request("/"))[2] == SECRET.encode()


async def test_a_missing_secret_refuses(here: World):
    way = await here.open(grant(here.service(inject=BEARER)))
    status, headers, body = await (await here.tls(way)).request("/")
    assert (status, headers["x-handiwork-rule"]) == (403, "session:test/svc")
    assert b"the secret key is not there" in body
    assert here.upstream.seen == []


async def test_a_secret_for_another_host_refuses(here: World):
    sealed = await here.sealed(hosts=("other.example.org",))
    way = await here.open(grant(here.service(inject=BEARER), secrets=(sealed,)))
    status, _, body = await (await here.tls(way)).request("/")
    assert status == 403
    assert b"not for api.example.org" in body
    assert here.upstream.seen == []


async def test_a_secret_that_does_not_open_refuses(here: World):
    sealed = await here.sealed()
    widened = type(sealed)(
        **{name: getattr(sealed, name) for name in sealed.__struct_fields__ if name != "hosts"},
        hosts=("*.example.org",),
    )
    way = await here.open(grant(here.service(inject=BEARER), secrets=(widened,)))
    assert (await (await here.tls(way)).request("/"))[0] == 403
    assert here.upstream.seen == []


async def test_a_secret_is_never_sent_in_clear(here: World):
    rule = InjectRule(id="clear", match=Match(hosts=(HOST,), schemes=("http",)), inject=BEARER)
    way = await here.open(grant(rule, secrets=(await here.sealed(),)))
    client, status = await here.captured(way, port=80)
    assert status == 0
    status, _, body = await client.request("/")
    assert status == 403
    assert b"never sent in clear" in body


async def test_the_absolute_form_makes_tls_for_tools(here: World):
    way = await here.open(await here.injecting())
    client = await here.connect(way)
    status, _, body = await client.request(f"https://{HOST}/x?y=1")
    assert status == 200
    assert json.loads(body)["target"] == "/x?y=1"
    assert here.upstream.seen[0].values("authorization") == [f"Bearer {SECRET}"]
    assert (await client.request(f"https://{HOST}:443/again"))[0] == 200


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (f"https://{HOST}/", "evil.example.com"),
        ("https://evil.example.com/", HOST),
        (f"https://{HOST}:8443/", HOST),
        (f"http://{HOST}/", f"{HOST}:443"),
        (f"https://u@{HOST}/", HOST),
        (f"ftp://{HOST}/", HOST),
        ("/", HOST),
        ("*", HOST),
    ],
)
async def test_an_absolute_form_that_disagrees_is_refused(here: World, target: str, host: str):
    client = await here.connect(await here.open(grant(here.service())))
    assert (await client.request(target, host=host))[0] in (400, 403)
    assert here.upstream.seen == []


async def test_host_must_be_the_tls_name(here: World):
    way = await here.open(grant(here.service(HOST, "www.example.org")))
    client = await here.tls(way)
    for host in ("www.example.org", "evil.example.com", f"{HOST}:8443", f"{HOST}:80"):
        status, headers, _ = await client.request("/", host=host)
        assert (status, headers["x-handiwork-rule"]) == (421, "misdirected")
    assert (await client.request("/", host="API.Example.ORG."))[0] == 200
    assert (await client.request("/", host=f"{HOST}:443"))[0] == 200
    assert (await client.request(f"https://{HOST}/in-absolute-form"))[0] == 200
    assert len(await here.records(4, status=421)) == 4


async def test_tls_needs_a_name(here: World):
    way = await here.open(grant(here.service()))
    with pytest.raises(OSError):
        await here.tls(way, name=None)
    (record,) = await here.records(1, kind="tls")
    assert (record.allowed, record.port) == (False, 443)


async def test_other_ports_are_refused_before_a_byte_is_read(here: World):
    way = await here.open(grant(here.service()))
    assert (await here.captured(way, port=22))[1] != 0
    assert (await here.captured(way, port=8443))[1] != 0
    assert len(await here.records(2, kind="tcp", allowed=False)) == 2


async def test_what_is_neither_tls_nor_http_is_refused(here: World):
    way = await here.open(grant(here.service()))
    client, status = await here.captured(way)
    assert status == 0
    await client.send(b"\x00\x01\x02\x03 not a protocol")
    assert await client.ended()
    client, _ = await here.captured(way)
    await client.send(b"SSH-2.0-OpenSSH_9.2\r\n")
    assert await client.ended()
    await here.records(1, kind="tcp", allowed=False)


async def test_a_port_a_rule_names_is_served(here: World):
    way = await here.open(grant(here.service(ports=(8443,))))
    client = await here.tls(way, port=8443)
    assert (await client.request("/", host=f"{HOST}:8443"))[0] == 200
    assert here.upstream.seen[0].values("host") == [f"{HOST}:8443"]
    assert (await client.request("/"))[0] == 421


async def test_bindings_do_not_share(here: World):
    one = await here.open(await here.injecting())
    other = await here.open(EgressGrant(layers=grant(here.service()).layers))
    assert (await (await here.tls(one)).request("/"))[0] == 200
    assert (await (await here.tls(other)).request("/"))[0] == 200
    assert here.upstream.connections == 2
    assert here.upstream.seen[1].values("authorization") == []
    assert one.ca_certificate != other.ca_certificate


async def test_keep_alive_reuses_the_upstream(here: World):
    client = await here.tls(await here.open(grant(here.service())))
    for _ in range(5):
        assert (await client.request("/"))[0] == 200
    assert here.upstream.connections == 1


async def test_an_address_in_the_host_needs_a_rule_that_names_it(here: World):
    way = await here.open(grant(AllowRule(id="all", match=Match(hosts=("*",)))))
    client = await here.connect(way)
    status, _, body = await client.request("https://127.0.0.1/", host="127.0.0.1")
    assert status == 403
    assert b"loopback" in body
