"""Alive is one thing, ready another."""

import httpx2

from api_stand_in import Served


async def test_ready_or_why_not(served: Served, http: httpx2.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "alive"}
    assert (await http.get("/readyz")).status_code == 200
    served.not_ready = {"egress": "the proxy is restarting", "brain": ""}
    answer = await http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"egress": "the proxy is restarting", "brain": "ready"}
