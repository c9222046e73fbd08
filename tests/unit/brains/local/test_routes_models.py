"""The models that agents may name are listed."""


async def test_models_are_listed_and_found(http):
    listed = (await http("GET", "/v1/models", headers={"anthropic-beta": ""})).json()
    assert [each["id"] for each in listed["data"]] == ["scripted"]
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == ("scripted",) * 2 + (
        False,
    )
    assert (await http("GET", "/v1/models/scripted")).json() == listed["data"][0]
    assert (await http("GET", "/v1/models/vendor/other")).status_code == 404


async def test_models_are_paged_by_id(http, services):
    for name in ("a", "b/c", "z"):
        services.catalog.models[name] = services.catalog.models["scripted"]

    async def listed(query: str) -> tuple[list[str], bool]:
        page = (await http("GET", f"/v1/models?{query}")).json()
        return [each["id"] for each in page["data"]], page["has_more"]

    assert await listed("limit=2") == (["a", "b/c"], True)
    assert await listed("limit=2&after_id=b/c") == (["scripted", "z"], False)
    assert await listed("limit=1&before_id=scripted") == (["b/c"], True)
    assert (await http("GET", "/v1/models/b/c")).json()["id"] == "b/c"


async def test_hands_need_no_models(http, environment_key):
    assert (await http("GET", "/v1/models", key=environment_key)).status_code == 403
