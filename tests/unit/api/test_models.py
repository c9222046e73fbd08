"""Models over HTTP: keys go in and never come out; the brain is told of every change."""

import httpx2
import pytest

from api_stand_in import ADMIN_KEY, Served, served_api
from handiwork.config import BrainModelSettings, LocalBrainSettings, Settings

KEY = "sk-live-0123456789"
BODY = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}


async def test_write_read_replace_delete(served: Served, http: httpx2.AsyncClient) -> None:
    written = await http.put("/api/models/qwen", json=BODY | {"key": KEY, "model": "qwen3:8b"})
    assert written.status_code == 200
    assert written.json()["has_key"] is True
    assert written.json()["settings"]["model"] == "qwen3:8b"
    assert await served.store.control_secrets.get("model-key/qwen") == KEY
    again = await http.put("/api/models/qwen", json=BODY | {"context_tokens": 32_768})
    assert again.json()["has_key"] is True
    assert (await http.get("/api/models")).json() == {"data": [again.json()]}
    assert (await http.get("/api/models/qwen")).json() == again.json()
    assert served.models_told == [["qwen"], ["qwen"]]
    assert (await http.delete("/api/models/qwen")).status_code == 204
    assert served.models_told[-1] == []
    assert await served.store.control_secrets.get("model-key/qwen") is None
    assert (await http.delete("/api/models/qwen")).status_code == 404
    assert (await http.get("/api/models/qwen")).status_code == 404


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"base_url": "ftp://x"},
        {"key": f"{KEY} and more"},
        {"max_output_tokens": 150_000},
        {"kye": KEY},
    ],
)
async def test_a_wrong_one_is_refused_and_changes_nothing(
    served: Served, http: httpx2.AsyncClient, change: dict[str, object]
) -> None:
    answer = await http.put("/api/models/m", json=BODY | {"key": KEY} | change)
    assert answer.status_code == 400
    assert KEY not in answer.text
    assert (await http.get("/api/models")).json() == {"data": []}
    assert served.models_told == []


async def test_a_kept_key_is_never_told_to_another_address(
    served: Served, http: httpx2.AsyncClient
) -> None:
    """Who may write a model could read its key otherwise, by having it sent to themselves."""
    await http.put("/api/models/m", json=BODY | {"key": KEY})
    elsewhere = BODY | {"base_url": "https://elsewhere.example/v1"}
    refused = await http.put("/api/models/m", json=elsewhere)
    assert refused.status_code == 400
    assert "give `key` again" in refused.text
    kept = (await http.get("/api/models/m")).json()
    assert kept["settings"]["base_url"] == BODY["base_url"]
    assert served.models_told == [["m"]]
    assert (await http.put("/api/models/m", json=elsewhere | {"key": ""})).status_code == 200
    assert await served.store.control_secrets.get("model-key/m") == ""
    assert (await http.put("/api/models/m", json=BODY)).status_code == 200


async def test_one_of_the_file_is_shown_and_changed_there(tmp_path) -> None:
    written = BrainModelSettings(name="m", key_file="/k", kind="openai", base_url=BODY["base_url"])
    settings = Settings(local_brain=LocalBrainSettings(models=(written,)))
    async with (
        served_api(tmp_path, settings=settings) as served,
        httpx2.AsyncClient(
            base_url=served.url, headers={"authorization": f"Bearer {ADMIN_KEY}"}
        ) as http,
    ):
        [shown] = (await http.get("/api/models")).json()["data"]
        assert (shown["source"], shown["has_key"]) == ("file", True)
        assert "key_file" not in shown["settings"]
        assert (await http.put("/api/models/m", json=BODY)).status_code == 409
        assert (await http.delete("/api/models/m")).status_code == 409


async def test_one_that_is_there_is_replaced_where_no_more_fit(
    served: Served, http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handiwork.api.models.MAX_MODELS", 1)
    assert (await http.put("/api/models/m", json=BODY)).status_code == 200
    assert (await http.put("/api/models/n", json=BODY)).status_code == 409
    again = await http.put("/api/models/m", json=BODY | {"model": "other"})
    assert again.json()["settings"]["model"] == "other"
