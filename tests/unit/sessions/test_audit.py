"""The index takes each record of each segment once, and goes on where it stopped."""

import asyncio
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
from structlog.testing import CapturingLogger

from handiwork.egress import audit as egress_audit
from handiwork.egress.audit import AuditWriter
from handiwork.model.audit import AuditRecord
from handiwork.sessions import audit
from handiwork.sessions.audit import AuditIndex
from handiwork.testing.store import MemoryStore
from session_world import until

_numbers = itertools.count()


def record() -> AuditRecord:
    return AuditRecord(
        id=f"req_{next(_numbers):06d}",
        at=datetime(2026, 1, 1, tzinfo=UTC),
        binding="sbx_1",
        kind="request",
        allowed=True,
        rules=("agent:web/docs",),
    )


def write(directory: Path, chain: str, count: int, **options: int) -> None:
    writer = AuditWriter(directory, chain, **options)
    for _ in range(count):
        writer.append(record())
        writer.flush()
    writer.close()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[CapturingLogger]:
    logger = CapturingLogger()
    structlog.configure(processors=[], logger_factory=lambda *_: logger)
    yield logger
    structlog.reset_defaults()


async def indexed(store: MemoryStore) -> int:
    return len(await store.audit.query(limit=100_000))


async def test_each_record_is_taken_once(tmp_path: Path) -> None:
    store = MemoryStore()
    index = AuditIndex(tmp_path, store.audit)
    assert await index.refresh() == 0
    write(tmp_path, "egress", 3)
    write(tmp_path, "other", 2)
    assert await index.refresh() == 5
    assert await index.refresh() == 0
    write(tmp_path, "egress", 1)
    assert await index.refresh() == 1
    assert await indexed(store) == 6
    assert await AuditIndex(tmp_path, store.audit).refresh() == 0


async def test_segments_that_are_full(tmp_path: Path) -> None:
    store = MemoryStore()
    write(tmp_path, "egress", 10, segment_bytes=600)
    assert len(list(tmp_path.glob("*.jsonl"))) > 3
    assert await AuditIndex(tmp_path, store.audit).refresh() == 10


async def test_a_segment_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_audit, "READ_BYTES", 2000)
    store = MemoryStore()
    write(tmp_path, "egress", 10)
    index = AuditIndex(tmp_path, store.audit)
    assert await index.refresh() == 10
    assert await index.refresh() == 0
    assert await indexed(store) == 10


async def test_a_torn_line_waits_for_its_end(tmp_path: Path) -> None:
    store = MemoryStore()
    index = AuditIndex(tmp_path, store.audit)
    write(tmp_path, "egress", 2)
    (segment,) = tmp_path.glob("*.jsonl")
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-10])
    assert await index.refresh() == 1
    segment.write_bytes(whole)
    assert await index.refresh() == 1


async def test_refreshes_at_once_take_nothing_twice(tmp_path: Path) -> None:
    write(tmp_path, "egress", 20)
    index = AuditIndex(tmp_path, MemoryStore().audit)
    async with asyncio.TaskGroup() as group:
        counts = [group.create_task(index.refresh()) for _ in range(5)]
    assert sorted(task.result() for task in counts) == [0, 0, 0, 0, 20]


async def test_a_changed_segment_is_told_and_the_index_goes_on(
    tmp_path: Path, told: CapturingLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "INTERVAL_SECONDS", 0.01)
    store = MemoryStore()
    write(tmp_path, "egress", 1)
    (segment,) = tmp_path.glob("*.jsonl")
    whole = segment.read_bytes()
    segment.write_bytes(whole.replace(b"docs", b"dogs"))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(AuditIndex(tmp_path, store.audit).run())
        await until(lambda: bool(told.calls))
        assert told.calls[0].method_name == "error"
        assert "audit segment was changed" in told.calls[0].kwargs["reason"]
        segment.write_bytes(whole)
        await until(lambda: bool(store.audit._records))
        running.cancel()


async def test_a_cut_segment_is_told_once_and_hides_no_other(
    tmp_path: Path, told: CapturingLogger
) -> None:
    store = MemoryStore()
    index = AuditIndex(tmp_path, store.audit)
    write(tmp_path, "a", 2)
    assert await index.refresh() == 2
    (cut,) = tmp_path.glob("a*.jsonl")
    cut.write_bytes(cut.read_bytes()[:-20])
    write(tmp_path, "b", 3)
    assert await index.refresh() == 3
    assert await index.refresh() == 0
    assert [call.kwargs["segment"] for call in told.calls] == [cut.name]
    assert "was cut" in told.calls[0].kwargs["reason"]
