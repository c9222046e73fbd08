"""`handiwork audit list`: what was decided, and only what is asked for."""

import json
from datetime import UTC, datetime
from pathlib import Path

from handiwork.egress.audit import AuditWriter
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


def test_verify(handiwork, tmp_path: Path) -> None:
    none = handiwork("audit", "verify")
    assert (none.code, str(tmp_path) in none.err) == (2, True)
    directory = tmp_path / "egress/audit"
    directory.mkdir(parents=True)
    writer = AuditWriter(directory, "egress")
    writer.append(record(1))
    writer.append(record(2))
    writer.close()
    holds = handiwork("audit", "verify")
    assert (holds.code, "holds" in holds.out) == (0, True)
    writer.path.write_bytes(writer.path.read_bytes().replace(b"sesn_1", b"sesn_9"))
    broken = handiwork("audit", "verify")
    assert broken.code == 1
    assert broken.out.startswith("egress-00000001.jsonl, line 1: was changed")
