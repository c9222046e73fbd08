"""States: ids are used once, a disk is state whatever else is lost, what is destroyed is gone."""

from datetime import UTC, datetime

import msgspec
import pytest

from handiwork.model.errors import (
    ConfigError,
    ConflictError,
    NotFoundError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.sandboxes.microvm import states
from handiwork.sandboxes.microvm.states import DISK, States

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def made(kept, sandbox_id):
    meta = kept.make(sandbox_id, "digest", NOW)
    (kept.path(sandbox_id) / DISK).write_bytes(b"disk")
    kept.save(meta)
    return meta


def test_a_state_is_read_back(tmp_path):
    kept = States(tmp_path / "states", first_id=0)
    meta = made(kept, "sbx_aaaaaaaa")
    assert kept.load("sbx_aaaaaaaa") == meta
    changed = msgspec.structs.replace(meta, sleeps_as="x")
    kept.save(changed)
    assert States(tmp_path / "states", first_id=0).load("sbx_aaaaaaaa") == changed
    assert kept.ids() == ["sbx_aaaaaaaa"]
    with pytest.raises(ConflictError):
        kept.make("sbx_aaaaaaaa", "digest", NOW)


def test_without_a_disk_there_is_no_state(tmp_path):
    kept = States(tmp_path, first_id=0)
    with pytest.raises(NotFoundError):
        kept.load("sbx_aaaaaaaa")
    kept.make("sbx_aaaaaaaa", "digest", NOW)
    with pytest.raises(NotFoundError):
        kept.load("sbx_aaaaaaaa")
    with pytest.raises(ConfigError, match="not valid"):
        kept.path("../x")


def test_a_lost_meta_file_is_told_and_nothing_is_deleted(tmp_path):
    kept = States(tmp_path, first_id=0)
    made(kept, "sbx_aaaaaaaa")
    (tmp_path / "sbx_aaaaaaaa/meta.json").write_text("{")
    with pytest.raises(SandboxUnavailableError, match=r"meta\.json"):
        kept.load("sbx_aaaaaaaa")
    assert (tmp_path / "sbx_aaaaaaaa" / DISK).read_bytes() == b"disk"


def test_every_machine_has_an_id_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(states, "IDS", 2)
    kept = States(tmp_path, first_id=70_000)
    owners = [kept.make(f"sbx_{letter * 8}", "d", NOW).owner for letter in "ab"]
    assert owners == [70_000, 70_001]
    with pytest.raises(UnsupportedError, match="no id is free"):
        kept.make("sbx_cccccccc", "d", NOW)
    kept.forget("sbx_aaaaaaaa")
    assert kept.make("sbx_dddddddd", "d", NOW).owner == 70_000


def test_a_state_of_another_user_is_not_woken(tmp_path):
    made(States(tmp_path, first_id=0), "sbx_aaaaaaaa")
    with pytest.raises(SandboxUnavailableError, match="ordinary user"):
        States(tmp_path, first_id=70_000).load("sbx_aaaaaaaa")


def test_a_destroy_that_was_cut_short_is_finished(tmp_path):
    kept = States(tmp_path, first_id=0)
    made(kept, "sbx_aaaaaaaa")
    gone = kept.forget("sbx_aaaaaaaa")
    assert kept.ids() == []
    assert gone.is_dir()
    assert kept.forget("sbx_aaaaaaaa") is None
    States(tmp_path, first_id=0)
    assert not gone.exists()


def test_what_is_made_beside_is_nobodys_until_it_is_settled(tmp_path):
    kept = States(tmp_path, first_id=70_000)
    one, other = (kept.stage("pool", "digest", NOW) for _ in range(2))
    assert kept.ids() == []
    assert one.meta.owner != other.meta.owner
    (one.path / DISK).write_bytes(b"disk")
    named = kept.name(one, "sbx_aaaaaaaa", NOW)
    kept.flush(named)
    assert kept.ids() == []
    kept.settle(named)
    assert kept.load("sbx_aaaaaaaa") == named.meta
    assert (named.meta.id, named.meta.owner) == ("sbx_aaaaaaaa", one.meta.owner)
    with pytest.raises(ConflictError):
        kept.name(other, "sbx_aaaaaaaa", NOW)
    kept.abandon(other)
    assert kept.make("sbx_bbbbbbbb", "digest", NOW).owner == other.meta.owner
    States(tmp_path, first_id=70_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sbx_aaaaaaaa", "sbx_bbbbbbbb"]


def test_one_takes_the_place_of_another_in_one_step(tmp_path, monkeypatch):
    kept = States(tmp_path, first_id=70_000)
    made(kept, "sbx_aaaaaaaa")
    old = kept.load("sbx_aaaaaaaa")
    staged = kept.stage("made", "other", NOW)
    (staged.path / DISK).write_bytes(b"new")

    def refuse():
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as failing:
        failing.setattr(kept, "flush_names", refuse)
        for name in ("sbx_aaaaaaaa", "sbx_cccccccc"):
            with pytest.raises(OSError, match="Input/output"):
                kept.install(staged, name)
            assert staged.path.is_dir()
    assert kept.load("sbx_aaaaaaaa") == old
    assert kept.ids() == ["sbx_aaaaaaaa"]
    replaced = kept.install(staged, "sbx_aaaaaaaa")
    found = kept.load("sbx_aaaaaaaa")
    assert (found.image, found.owner) == ("other", staged.meta.owner)
    assert (kept.path("sbx_aaaaaaaa") / DISK).read_bytes() == b"new"
    assert (replaced / "meta.json").exists()
    assert kept.make("sbx_bbbbbbbb", "digest", NOW).owner == old.owner


def test_what_states_stand_on_is_told_or_nothing_is(tmp_path):
    kept = States(tmp_path, first_id=0)
    for letter in "ab":
        made(kept, f"sbx_{letter * 8}")
    assert kept.standing() == {"digest": ["sbx_aaaaaaaa", "sbx_bbbbbbbb"]}
    assert States(tmp_path, first_id=70_000).standing() == kept.standing()
    (tmp_path / "sbx_aaaaaaaa/meta.json").write_text("{")
    with pytest.raises(SandboxUnavailableError):
        kept.standing()


def test_a_file_is_for_its_machine_alone(tmp_path):
    kept = States(tmp_path / "s", first_id=0)
    meta = made(kept, "sbx_aaaaaaaa")
    path = kept.path("sbx_aaaaaaaa") / DISK
    path.chmod(0o644)
    kept.own(path, meta)
    assert path.stat().st_mode & 0o777 == 0o600
