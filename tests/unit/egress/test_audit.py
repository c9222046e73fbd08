import os
from datetime import UTC, datetime

import msgspec
import pytest

from handiwork.egress import audit
from handiwork.egress.audit import AuditWriter, read_segment, verify
from handiwork.model.audit import AuditRecord
from handiwork.model.errors import ConfigError


def _record(number):
    return AuditRecord(
        id=f"aud_{number:08d}",
        at=datetime(2026, 1, 2, 3, 4, 5, number, tzinfo=UTC),
        binding="way_12345678",
        kind="http",
        allowed=number % 2 == 0,
        rules=("agent:p/a",),
        host="a.test",
        path='/quo"te\u2028\x7f',
    )


def _write(directory, numbers, **options):
    writer = AuditWriter(directory, "proxy-0", **options)
    for number in numbers:
        writer.append(_record(number))
        writer.flush()
    writer.close()
    return writer


def _all_records(directory):
    found = []
    for path in sorted(directory.glob("*.jsonl")):
        found += read_segment(path, 0)[0]
    return found


def test_records_come_back_as_they_were(tmp_path):
    _write(tmp_path, range(3))
    assert _all_records(tmp_path) == [_record(number) for number in range(3)]
    assert verify(tmp_path) == []


def test_nothing_is_on_disk_before_a_flush_and_all_after(tmp_path):
    writer = AuditWriter(tmp_path, "proxy-0")
    writer.append(_record(0))
    assert read_segment(writer.path, 0) == ([], 0)
    writer.flush()
    records, position = read_segment(writer.path, 0)
    assert (len(records), position) == (1, writer.path.stat().st_size)
    writer.append(_record(1))
    writer.close()
    assert read_segment(writer.path, position)[0] == [_record(1)]


def test_a_full_buffer_is_written_without_being_asked(tmp_path):
    writer = AuditWriter(tmp_path, "proxy-0")
    for number in range(2000):
        writer.append(_record(number))
    assert writer.path.stat().st_size > 0
    writer.close()
    assert len(_all_records(tmp_path)) == 2000


def test_the_chain_goes_on_over_segments_and_starts(tmp_path):
    for start in range(0, 20, 5):
        _write(tmp_path, range(start, start + 5), segment_bytes=1000)
    assert len(list(tmp_path.glob("proxy-0-*.jsonl"))) > 3
    assert [record.id for record in _all_records(tmp_path)] == [f"aud_{n:08d}" for n in range(20)]
    assert verify(tmp_path) == []


def test_two_writers_have_two_chains(tmp_path):
    one, two = AuditWriter(tmp_path, "proxy-0"), AuditWriter(tmp_path, "proxy-1")
    one.append(_record(0))
    two.append(_record(1))
    one.close()
    two.close()
    assert verify(tmp_path) == []


def test_one_chain_has_one_writer(tmp_path):
    writer = AuditWriter(tmp_path, "proxy-0")
    with pytest.raises(ConfigError, match="written by another process"):
        AuditWriter(tmp_path, "proxy-0")
    writer.close()
    AuditWriter(tmp_path, "proxy-0").close()


@pytest.mark.parametrize("torn", [b"{", b'{"prev":"00', b"\xff\xfe", b"x" * 5000])
def test_a_torn_line_is_cut_and_the_chain_goes_on(tmp_path, torn):
    path = _write(tmp_path, range(2)).path
    with path.open("ab") as file:
        file.write(torn)
    assert len(read_segment(path, 0)[0]) == 2
    assert _write(tmp_path, range(2, 4)).cut_bytes == len(torn)
    assert len(_all_records(tmp_path)) == 4
    assert verify(tmp_path) == []


def test_a_torn_first_line_of_a_new_segment_is_cut(tmp_path):
    _write(tmp_path, range(4), segment_bytes=500)
    newest = max(tmp_path.glob("*.jsonl"))
    assert newest.stat().st_size == 0
    newest.write_bytes(b'{"prev"')
    _write(tmp_path, range(4, 6))
    assert verify(tmp_path) == []
    assert len(_all_records(tmp_path)) == 6


def _change(data):
    return data.replace(b"a.test", b"b.test", 1)


def _cut_middle(data):
    lines = data.splitlines(keepends=True)
    return b"".join(lines[:2] + lines[3:])


def _reorder(data):
    lines = data.splitlines(keepends=True)
    return b"".join([lines[1], lines[0], *lines[2:]])


def _cut_first(data):
    return b"".join(data.splitlines(keepends=True)[1:])


def _repeat(data):
    lines = data.splitlines(keepends=True)
    return b"".join([lines[0], *lines])


def _tear(data):
    return data[:-10]


def _spell_differently(data):
    return data.replace(b'"prev":', b'"prev": ', 1)


@pytest.mark.parametrize(
    "tamper", [_change, _cut_middle, _reorder, _cut_first, _repeat, _tear, _spell_differently]
)
def test_verify_finds_every_kind_of_tampering(tmp_path, tamper):
    path = _write(tmp_path, range(5)).path
    path.write_bytes(tamper(path.read_bytes()))
    assert verify(tmp_path)


def test_a_change_is_placed_by_segment_and_line(tmp_path):
    path = _write(tmp_path, range(5)).path
    path.write_bytes(_change(path.read_bytes()))
    assert [(problem.segment, problem.line) for problem in verify(tmp_path)] == [(path.name, 1)]


def test_sabotage_with_a_hash_that_ignores_content_a_change_passes(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "_chained", lambda prev, record: prev)
    path = _write(tmp_path, range(5)).path
    path.write_bytes(_change(path.read_bytes()))
    assert verify(tmp_path) == []


def test_verify_finds_a_missing_segment(tmp_path):
    _write(tmp_path, range(10), segment_bytes=1000)
    segments = sorted(tmp_path.glob("*.jsonl"))
    segments[1].unlink()
    assert [problem.segment for problem in verify(tmp_path)] == [segments[2].name]
    segments[0].unlink()
    assert "1 to 2" in verify(tmp_path)[0].message


def test_a_change_is_not_indexed(tmp_path):
    path = _write(tmp_path, range(2)).path
    path.write_bytes(_change(path.read_bytes()))
    with pytest.raises(OSError, match="was changed"):
        read_segment(path, 0)


def test_a_cut_segment_is_not_indexed(tmp_path):
    path = _write(tmp_path, range(2)).path
    with pytest.raises(OSError, match="was cut"):
        read_segment(path, path.stat().st_size + 1)


def test_a_damaged_end_stops_the_writer(tmp_path):
    path = _write(tmp_path, range(2)).path
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + _change(lines[1]))
    with pytest.raises(ConfigError, match="is damaged"):
        AuditWriter(tmp_path, "proxy-0")


def test_a_disk_that_refuses_is_told_and_nothing_is_lost(tmp_path, monkeypatch):
    writer = AuditWriter(tmp_path, "proxy-0")
    writer.append(_record(0))
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:100]))
    writer.flush()  # short writes are continued
    writer.append(_record(1))

    def full_after_a_piece(fd, data):
        if len(data) < 100:
            raise OSError(28, "No space left on device")
        return real(fd, data[:100])

    monkeypatch.setattr(os, "write", full_after_a_piece)
    with pytest.raises(OSError, match="No space"):
        writer.flush()
    monkeypatch.setattr(os, "write", real)
    writer.close()
    assert len(_all_records(tmp_path)) == 2
    assert verify(tmp_path) == []


def test_an_endless_record_is_refused(tmp_path):
    writer = AuditWriter(tmp_path, "proxy-0")
    with pytest.raises(ValueError, match="larger than a line"):
        writer.append(msgspec.structs.replace(_record(0), path="x" * 300_000))
    writer.close()


def test_segments_are_private(tmp_path):
    path = _write(tmp_path / "audit", range(1)).path
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
