"""Nobody passes without proof of who it is; no page of another site passes at all."""

import hashlib
import os

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_stand_in import ADMIN_KEY, Served
from handiwork.api.gate import SIGNED_PATH, Caller, Gate

GATE = Gate(hashlib.sha256(ADMIN_KEY.encode()).digest(), "control.example")
BEARER = f"Bearer {ADMIN_KEY}"


def status(**facts: object) -> int:
    """The status of the refusal, or 0 when the caller passes."""
    caller = {
        "path": "/api/sandboxes",
        "hosts": ("127.0.0.1:8787",),
        "origins": (),
        "authorizations": (BEARER,),
        "peer_uid": None,
        "local_address": "127.0.0.1",
    }
    refusal = GATE.check(Caller(**(caller | facts)))  # type: ignore[arg-type]
    return refusal.status if refusal else 0


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8787", "127.0.0.1", "localhost:8787", "LOCALHOST", "[::1]:8787", "control.example"],
)
def test_our_names_pass(host: str) -> None:
    assert status(hosts=(host,)) == 0


@pytest.mark.parametrize(
    "hosts",
    [
        (),
        ("",),
        ("evil.example",),
        ("evil.example:8787",),
        ("localhost.evil.example",),
        ("127.0.0.1.evil.example",),
        ("127.0.0.1:8787", "evil.example"),
        ("10.0.0.5:8787",),
        ("localhost:",),
        ("user@localhost",),
    ],
)
def test_other_names_do_not(hosts: tuple[str, ...]) -> None:
    assert status(hosts=hosts) == 403


def test_the_address_that_was_called_is_a_name_of_ours() -> None:
    assert status(hosts=("10.0.0.5:8787",), local_address="10.0.0.5") == 0
    assert status(hosts=("[fd00::1]:8787",), local_address="fd00:0::1") == 0


@pytest.mark.parametrize(
    "origin",
    ["null", "", "http://evil.example", "http://localhost:3000", "http://127.0.0.1", "file://"],
)
def test_a_foreign_origin_is_refused(origin: str) -> None:
    assert status(origins=(origin,)) == 403
    assert status(origins=(origin,), peer_uid=0) == 403


def test_our_own_origin_passes() -> None:
    assert status(origins=("http://127.0.0.1:8787",)) == 0


@pytest.mark.parametrize(
    "authorizations",
    [
        (),
        ("",),
        ("Bearer",),
        ("Bearer ",),
        (ADMIN_KEY,),
        ("Basic " + ADMIN_KEY,),
        ("Bearer " + ADMIN_KEY[:-1],),
        ("Bearer " + ADMIN_KEY + "x",),
        ("Bearer " + ADMIN_KEY.upper(),),
        (BEARER, BEARER),
    ],
)
def test_a_wrong_key_is_refused(authorizations: tuple[str, ...]) -> None:
    assert status(authorizations=authorizations) == 401


@given(st.text())
def test_no_other_text_is_the_key(text: str) -> None:
    assert status(authorizations=(f"Bearer {text}",)) == (0 if text.strip() == ADMIN_KEY else 401)


def test_the_kernel_vouches_for_a_peer() -> None:
    assert status(authorizations=(), peer_uid=os.geteuid()) == 0
    assert status(authorizations=(), peer_uid=0) == 0
    assert status(authorizations=(BEARER,), peer_uid=os.geteuid() + 12345) == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json"])
def test_health_needs_no_key_but_our_name(path: str) -> None:
    assert status(path=path, authorizations=()) == 0
    assert status(path=path, authorizations=(), hosts=("evil.example",)) == 403


def test_the_one_path_that_takes_everybody() -> None:
    stranger = {"authorizations": (), "hosts": ("hooks.example",), "origins": ("null",)}
    assert status(path="/webhooks", **stranger) == 0
    for near in ("/webhooks/", "/Webhooks", "//webhooks", "/webhooks/a", "/api/webhooks", "/"):
        assert status(path=near, **stranger) == 403
        assert status(path=near, authorizations=()) == 401


async def test_every_route_is_behind_it(served: Served) -> None:
    async with httpx2.AsyncClient(base_url=served.url, trust_env=False) as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
        assert len(paths) > 20
        for path, methods in paths.items():
            for method in methods:
                answer = await http.request(method, path.replace("{", "").replace("}", ""))
                if path == SIGNED_PATH:
                    assert answer.status_code == 404
                    continue
                if path in ("/healthz", "/readyz"):
                    assert answer.status_code == 200
                    continue
                assert answer.status_code == 401, path
                assert answer.json()["error"]["type"] == "unauthorized"
                assert answer.headers["www-authenticate"] == "Bearer"


async def test_nothing_happens_before_it(served: Served) -> None:
    headers = served.authorization | {"Origin": "https://evil.example"}
    async with httpx2.AsyncClient(base_url=served.url, trust_env=False) as http:
        answer = await http.post("/api/sandboxes", json={}, headers=headers)
        assert answer.status_code == 403
        rebound = await http.post("/api/sandboxes", json={}, headers={"Host": "evil.example"})
        assert rebound.status_code == 403
    assert served.sandboxes.live == {}


async def test_the_unix_socket_needs_no_key(served: Served) -> None:
    transport = httpx2.AsyncHTTPTransport(uds=served.socket_path)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
        assert (await http.get("/api/sandboxes")).status_code == 200
