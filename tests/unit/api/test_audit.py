"""The audit over HTTP: brought up to date, then filtered."""

import httpx2

from api_stand_in import NOW, Served
from handiwork.model.audit import AuditRecord


def record(id: str, **fields: object) -> AuditRecord:
    return AuditRecord(id=id, at=NOW, binding="b", kind="http", rules=(), **fields)  # type: ignore[arg-type]


async def test_filters(served: Served, http: httpx2.AsyncClient) -> None:
    records = [
        record("aud_1", allowed=True, session_id="sesn_1"),
        record("aud_2", allowed=False, sandbox_id="sbx_1"),
    ]
    await served.store.audit.append(records, segment="s", position=1)

    async def ids(query: str) -> list[str]:
        return [r["id"] for r in (await http.get(f"/api/audit{query}")).json()["data"]]

    assert await ids("") == ["aud_2", "aud_1"]
    assert await ids("?allowed=false") == ["aud_2"]
    assert await ids("?session_id=sesn_1") == ["aud_1"]
    assert await ids("?sandbox_id=sbx_1&allowed=true") == []
    assert len(served.indexed) == 4
