"""What the application answers when nothing fits or something breaks."""


async def test_unknown_paths_and_methods_have_the_envelope(http):
    lost = await http("GET", "/v1/nothing")
    assert (lost.status_code, lost.json()["error"]["type"]) == (404, "not_found_error")
    assert lost.json()["request_id"] == lost.headers["request-id"]
    assert (await http("PUT", "/v1/agents", {})).status_code == 405


async def test_a_defect_tells_nothing_of_itself(http, services, monkeypatch):
    async def broken(_catalog, *_arguments):
        raise RuntimeError("the password is 1234")

    monkeypatch.setattr(type(services.catalog), "agent", broken)
    answered = await http("GET", "/v1/agents/agent_1")
    assert answered.status_code == 500
    assert "1234" not in answered.text


async def test_health_is_answered(http):
    assert (await http("GET", "/healthz")).json() == {"status": "ok"}
