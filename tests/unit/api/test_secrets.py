"""Secrets over HTTP: they go in and never come out."""

import io

import httpx2
import structlog

from api_stand_in import Served
from handiwork.observe import log

VALUE = "sk-live-0123456789"


async def test_write_list_replace_delete(served: Served, http: httpx2.AsyncClient) -> None:
    body = {"value": VALUE, "hosts": ["api.test", "*.api.test"]}
    written = await http.put("/api/secrets/key", json=body)
    assert written.json()["version"] == 1
    again = await http.put("/api/secrets/key", json=body | {"value": VALUE + "x"})
    assert again.json()["version"] == 2
    assert (await http.get("/api/secrets")).json() == {"data": [again.json()]}
    assert served.sandboxes.refreshed == ["", ""]
    assert (await http.delete("/api/secrets/key")).status_code == 204
    assert (await http.get("/api/secrets")).json() == {"data": []}
    assert (await http.delete("/api/secrets/key")).status_code == 404


async def test_the_value_is_in_no_answer_no_log_and_not_in_the_store(
    served: Served, http: httpx2.AsyncClient
) -> None:
    lines = io.StringIO()
    log.set_up(level="debug", process="test", stream=lines)
    try:
        bodies = [{"value": VALUE, "hosts": ["api.test"]}, {"value": VALUE, "hosts": []}]
        bodies += [{"value": VALUE, "hosts": "api.test"}, {"valeu": VALUE, "hosts": ["api.test"]}]
        answers = [await http.put("/api/secrets/key", json=body) for body in bodies]
        answers += [await http.get("/api/secrets"), await http.get("/api/secrets/key")]
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
    assert [answer.status_code for answer in answers] == [200, 400, 400, 400, 200, 405]
    [sealed] = await served.store.secrets.sealed(["key"])
    for text in (*(answer.text for answer in answers), lines.getvalue(), repr(sealed)):
        assert VALUE not in text
    assert VALUE.encode() not in sealed.ciphertext
    assert "/api/secrets/key" in lines.getvalue()


async def test_a_bad_name_is_refused(http: httpx2.AsyncClient) -> None:
    answer = await http.put("/api/secrets/Not%20Valid", json={"value": VALUE, "hosts": ["a.test"]})
    assert answer.status_code == 400
