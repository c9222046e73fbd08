"""Who may register endpoints, and what is refused."""

import pytest

PATH = "/v1/webhook_endpoints"
URL = "https://example.com/hook"


async def test_an_endpoint_is_registered_listed_and_deleted(http):
    made = (await http("POST", PATH, {"url": URL}, headers={"anthropic-beta": ""})).json()
    assert made["signing_secret"].startswith("whsec_")
    assert "session.status_idled" in made["event_types"]
    shown = {key: value for key, value in made.items() if key != "signing_secret"}
    assert (await http("GET", f"{PATH}/{made['id']}")).json() == shown
    assert (await http("GET", PATH)).json()["data"] == [shown]
    gone = await http("DELETE", f"{PATH}/{made['id']}")
    assert gone.json()["type"] == "webhook_endpoint_deleted"
    assert (await http("GET", f"{PATH}/{made['id']}")).status_code == 404
    assert (await http("DELETE", f"{PATH}/{made['id']}")).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": "http://example.com"},
        {"url": URL, "event_types": []},
        {"url": URL, "event_types": ["session.slept"]},
        {"url": URL, "event_types": ["deployment.created"]},
        {"url": URL, "secret": "mine"},
    ],
)
async def test_a_wrong_endpoint_is_a_400(http, body):
    assert (await http("POST", PATH, body)).status_code == 400


async def test_hands_register_nothing(http, environment_key):
    for method in ("GET", "POST"):
        body = {"url": URL} if method == "POST" else None
        assert (await http(method, PATH, body, key=environment_key)).status_code == 403
