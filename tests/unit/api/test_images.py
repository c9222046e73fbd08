"""Images over HTTP: made of what is sent, told as it goes, refused by name."""

import json
from pathlib import Path

import httpx2
import pytest

from api_stand_in import Served, served_api
from handiwork.config import ImageSettings, Settings
from image_archives import Oci, entry, tar

TREE = tar(entry("etc/told", b"by me"))


def frames(answer: httpx2.Response) -> list[dict[str, dict[str, object]]]:
    assert answer.status_code == 200
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_an_archive_becomes_an_image(http: httpx2.AsyncClient) -> None:
    told = frames(await http.post("/api/images/mine/import", content=Oci(TREE).tar()))
    made = told[-1]["image"]
    assert (made["names"], made["source"]) == (["mine"], "archive")
    assert all("progress" in one for one in told[:-1])
    assert (await http.get("/api/images/mine")).json() == made
    assert (await http.get(f"/api/images/{made['digest']}")).json() == made
    listed = (await http.get("/api/images")).json()["data"]
    assert {name for one in listed for name in one["names"]} == {"host", "mine"}
    assert (await http.delete("/api/images/mine")).status_code == 204
    assert (await http.get("/api/images/mine")).status_code == 404
    assert (await http.delete("/api/images/mine")).status_code == 404


async def test_what_is_wrong_with_it_is_told_at_the_end(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/api/images/mine/import", content=tar(entry("../x")))
    error = frames(answer)[-1]["error"]
    assert "'..'" in str(error["message"])
    assert error["type"] == "config"
    assert (await http.get("/api/images/mine")).status_code == 404


@pytest.mark.parametrize("verb", ["import", "recipe", "dockerfile"])
async def test_a_wrong_name_is_refused_before_anything(http: httpx2.AsyncClient, verb: str) -> None:
    for name in ("host", "A", "x" * 64):
        answer = await http.post(f"/api/images/{name}/{verb}", content=b"")
        assert answer.status_code == 400


async def test_a_wrong_recipe_is_refused_before_anything(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/api/images/mine/recipe", content=b'suite = "sid"\nurl = "x"')
    assert (answer.status_code, "url" in answer.text) == (400, True)


async def test_a_dockerfile_stays_in_its_context(http: httpx2.AsyncClient) -> None:
    for file in ("../Dockerfile", "none"):
        answer = await http.post("/api/images/mine/dockerfile", params={"file": file}, content=TREE)
        assert "Dockerfile" in str(frames(answer)[-1]["error"]["message"])


async def test_the_host_image_is_not_removed(http: httpx2.AsyncClient) -> None:
    await http.get("/api/images")
    assert (await http.delete("/api/images/host")).status_code == 409


async def test_a_build_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    settings = Settings(images=ImageSettings(build_seconds=0.000001))
    async with served_api(tmp_path, settings) as served, served_http(served) as http:
        answer = await http.post("/api/images/mine/import", content=TREE)
        assert "build_seconds" in str(frames(answer)[-1]["error"]["message"])
        assert (await http.get("/api/images/mine")).status_code == 404


def served_http(served: Served) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=served.url, headers=served.authorization, trust_env=False)


async def test_a_registrys_password_goes_in_and_never_out(
    served: Served, http: httpx2.AsyncClient
) -> None:
    body = {"user": "me", "password": "pass-0123456789"}
    assert (await http.put("/api/registries/r.example.org", json=body)).status_code == 204
    assert await served.store.control_secrets.get("registry/r.example.org") == "me:pass-0123456789"
    assert (await http.put("/api/registries/nothost", json=body)).status_code == 400
    wrong = await http.put("/api/registries/r.example.org", json=body | {"user": "a:b"})
    assert (wrong.status_code, "pass-" in wrong.text) == (400, False)
    assert (await http.delete("/api/registries/r.example.org")).status_code == 204
    assert await served.store.control_secrets.get("registry/r.example.org") is None


async def test_a_wrong_reference_is_refused_before_anything(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/api/images/mine/pull", json={"reference": "debian:12"})
    assert (answer.status_code, "HOST/PATH" in answer.text) == (400, True)
