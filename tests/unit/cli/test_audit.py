"""`handiwork audit list`: what was decided, and only what is asked for."""

import json
from datetime import UTC, datetime

from handiwork.model.audit import AuditRecord

AT = datetime(2026, 1, 2, tzinfo=UTC)


def record(number: int, **more: object) -> AuditRecord:
    given: dict[str, object] = {
        "id": f"req_{number}",
        "at": AT.replace(minute=number),
        "binding": "sbx_1",
        "sandbox_id": f"sbx_{number}",
        "session_id": f"sesn_{number}",
        "kind": "request",
        "allowed": True,
        "rules": ("agent:demo/one",),
        "host": "api.test",
        "path": "/[/red]",
        **more,
    }
    return AuditRecord(**given)  # type: ignore[arg-type]


def test_list(api, handiwork) -> None:
    records = [record(1), record(2, allowed=False, reason="no such rule"), record(3)]
    api(api.served.store.audit.append(records, segment="a", position=1))
    rows = json.loads(handiwork("audit", "list", "--json").out)
    assert [row["id"] for row in rows] == ["req_3", "req_2", "req_1"]
    assert len(json.loads(handiwork("audit", "list", "--json", "--limit", "1").out)) == 1
    for options, found in [
        (("--denied",), "req_2"),
        (("--session", "sesn_1"), "req_1"),
        (("--sandbox", "sbx_3"), "req_3"),
    ]:
        (row,) = json.loads(handiwork("audit", "list", "--json", *options).out)
        assert row["id"] == found
    table = handiwork("audit", "list")
    assert table.code == 0
    assert "/[/red]" in table.out
    assert "no such rule" in table.out
    assert handiwork("audit", "list", "--limit", "0").code == 2
