"""States survive crashes, keep their id ranges, and go only when asked."""

import os
from datetime import UTC, datetime

import pytest

from handiwork.model.errors import (
    ConfigError,
    ConflictError,
    NotFoundError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.sandboxes.states import IDS, States

NOW = datetime(2026, 1, 2, tzinfo=UTC)
FIRST = 1 << 30
ROOT = os.geteuid() == 0


def open_states(tmp_path, first=FIRST):
    return States(tmp_path / "sandboxes", ranged=ROOT, first_id=first)


def test_a_state_is_made_saved_and_loaded(tmp_path):
    states = open_states(tmp_path)
    meta = states.make("sbx_aaaaaaaa", "digest", NOW)
    states.save(meta)
    assert open_states(tmp_path).load("sbx_aaaaaaaa", "other") == meta
    assert (tmp_path / "sandboxes").stat().st_mode & 0o777 == 0o700
    with pytest.raises(ConflictError):
        states.make("sbx_aaaaaaaa", "digest", NOW)


def test_it_tells_what_states_stand_on(tmp_path):
    states = open_states(tmp_path)
    for name, image in (("sbx_aaaaaaaa", "one"), ("sbx_bbbbbbbb", "two"), ("sbx_cccccccc", "one")):
        states.save(states.make(name, image, NOW))
    assert states.standing() == {"one": ["sbx_aaaaaaaa", "sbx_cccccccc"], "two": ["sbx_bbbbbbbb"]}


def test_what_was_made_to_prove_a_tier_goes_at_the_next_start(tmp_path):
    states = open_states(tmp_path)
    for name in ("attempt_0000000007", "sbx_aaaaaaaa"):
        states.save(states.make(name, "digest", NOW))
    assert open_states(tmp_path).ids() == ["sbx_aaaaaaaa"]


@pytest.mark.root
def test_ranges_are_unique_among_all_states(tmp_path):
    states = open_states(tmp_path)
    bases = [states.make(f"sbx_aaaaaaa{n}", "d", NOW).id_base for n in range(3)]
    assert bases == [FIRST, FIRST + IDS, FIRST + 2 * IDS]
    again = open_states(tmp_path)
    assert again.make("sbx_aaaaaaa3", "d", NOW).id_base == FIRST + 3 * IDS
    assert again.forget("sbx_aaaaaaa1") is not None
    assert again.make("sbx_aaaaaaa4", "d", NOW).id_base == FIRST + IDS
    assert (again.path("sbx_aaaaaaa4") / "upper").stat().st_uid == FIRST + IDS


@pytest.mark.root
def test_ranges_run_out(tmp_path):
    states = open_states(tmp_path, first=0xFFFFFFFF - IDS)
    states.make("sbx_aaaaaaaa", "d", NOW)
    with pytest.raises(UnsupportedError, match="first_id"):
        states.make("sbx_bbbbbbbb", "d", NOW)


def test_one_that_is_made_ahead_is_nobodys_until_it_is_settled(tmp_path):
    states = open_states(tmp_path)
    ahead, other = states.ahead("digest", NOW), states.ahead("digest", NOW)
    assert states.ids() == []
    assert (ahead.path.name, other.path.name) == (".pool-0", ".pool-1")
    (ahead.path / "upper/file").write_text("kept")
    meta = states.settle(ahead, "sbx_aaaaaaaa", NOW)
    states.save(meta)
    assert open_states(tmp_path).load("sbx_aaaaaaaa", "") == meta
    assert (states.path("sbx_aaaaaaaa") / "upper/file").read_text() == "kept"
    bases = {meta.id_base, states.make("sbx_bbbbbbbb", "digest", NOW).id_base}
    assert len(bases) == (2 if ROOT else 1)


def test_one_that_is_made_ahead_replaces_nothing(tmp_path):
    states = open_states(tmp_path)
    states.make("sbx_aaaaaaaa", "d", NOW)
    ahead = states.ahead("digest", NOW)
    with pytest.raises(ConflictError):
        states.settle(ahead, "sbx_aaaaaaaa", NOW)
    states.abandon(ahead)
    if ROOT:
        assert states.ahead("digest", NOW).meta.id_base == ahead.meta.id_base


def test_what_a_former_run_made_ahead_is_removed(tmp_path):
    ahead = open_states(tmp_path).ahead("digest", NOW)
    assert ahead.path.is_dir()
    open_states(tmp_path)
    assert not ahead.path.exists()


@pytest.mark.parametrize("left", [None, b"", bytes(64)])
def test_a_lost_meta_file_loses_nothing(tmp_path, left):
    states = open_states(tmp_path)
    made = states.make("sbx_aaaaaaaa", "d", NOW)
    (states.path("sbx_aaaaaaaa") / "upper/file").write_text("kept")
    if left is not None:
        (states.path("sbx_aaaaaaaa") / "meta.json").write_bytes(left)
    again = open_states(tmp_path)
    assert again.ids() == ["sbx_aaaaaaaa"]
    found = again.load("sbx_aaaaaaaa", "current")
    assert (found.id_base, found.image) == (made.id_base, "current")
    assert (again.path("sbx_aaaaaaaa") / "upper/file").read_text() == "kept"


@pytest.mark.parametrize("left", [b"{", b'{"id": 3}', None])
def test_a_meta_file_that_cannot_be_read_is_an_error(tmp_path, left):
    """It may tell of layers: nothing may be taken for what it says."""
    states = open_states(tmp_path)
    states.save(states.make("sbx_bbbbbbbb", "other", NOW))
    states.make("sbx_aaaaaaaa", "d", NOW)
    file = states.path("sbx_aaaaaaaa") / "meta.json"
    file.mkdir() if left is None else file.write_bytes(left)
    again = open_states(tmp_path)
    for asked in (
        lambda: again.load("sbx_aaaaaaaa", "current"),
        lambda: again.seen("sbx_aaaaaaaa"),
        again.standing,
    ):
        with pytest.raises(SandboxUnavailableError, match=r"sbx_aaaaaaaa/meta\.json.* be read"):
            asked()
    assert again.load("sbx_bbbbbbbb", "").image == "other"


def test_a_deletion_that_was_interrupted_is_finished(tmp_path):
    states = open_states(tmp_path)
    states.make("sbx_aaaaaaaa", "d", NOW)
    gone = states.forget("sbx_aaaaaaaa")
    assert gone is not None
    assert gone.is_dir()
    assert open_states(tmp_path).ids() == []
    assert list((tmp_path / "sandboxes").iterdir()) == []
    assert states.forget("sbx_aaaaaaaa") is None


def test_what_is_not_there(tmp_path):
    with pytest.raises(NotFoundError):
        open_states(tmp_path).load("sbx_aaaaaaaa", "d")


@pytest.mark.parametrize("name", ["", "..", "../x", "sbx_a/../..", "sbx_", "SBX_aaaaaaaa"])
def test_an_id_is_no_path(tmp_path, name):
    with pytest.raises(ConfigError):
        open_states(tmp_path).path(name)


@pytest.mark.root
def test_a_range_is_told_by_what_no_guest_can_give_away(tmp_path):
    states = open_states(tmp_path)
    made = states.make("sbx_aaaaaaaa", "d", NOW)
    os.chown(states.path("sbx_aaaaaaaa") / "upper", FIRST + 1000, FIRST + 1000)
    again = open_states(tmp_path)
    assert again.load("sbx_aaaaaaaa", "d").id_base == made.id_base
    assert again.make("sbx_bbbbbbbb", "d", NOW).id_base == FIRST + IDS


@pytest.mark.root
def test_a_state_without_a_range_is_not_woken_as_root(tmp_path):
    rootless = States(tmp_path / "sandboxes", ranged=False, first_id=FIRST)
    rootless.save(rootless.make("sbx_aaaaaaaa", "d", NOW))
    with pytest.raises(SandboxUnavailableError, match="no id range"):
        open_states(tmp_path).load("sbx_aaaaaaaa", "d")
    ranged = open_states(tmp_path)
    ranged.make("sbx_bbbbbbbb", "d", NOW)
    for name in ("upper", "work"):  # a crash before the range was given
        os.chown(ranged.path("sbx_bbbbbbbb") / name, 0, 0)
    with pytest.raises(SandboxUnavailableError, match="no id range"):
        ranged.load("sbx_bbbbbbbb", "d")
    ranged.save(ranged.make("sbx_cccccccc", "d", NOW))
    with pytest.raises(SandboxUnavailableError, match="only root"):
        rootless.load("sbx_cccccccc", "d")


def test_a_state_is_forgotten_again_while_the_last_one_is_deleted(tmp_path):
    states = open_states(tmp_path)
    places = []
    for _ in range(2):
        states.make("sbx_aaaaaaaa", "d", NOW)
        places.append(states.forget("sbx_aaaaaaaa"))
    assert len({*places}) == 2
    assert all(place.is_dir() for place in places)
    open_states(tmp_path)
    assert not any(place.exists() for place in places)


def test_a_staged_state_takes_the_place_of_the_old_one_in_one_step(tmp_path):
    states = States(tmp_path / "s", ranged=False, first_id=0)
    states.save(states.make("sbx_aaaaaaaa", "old", NOW))
    (states.path("sbx_aaaaaaaa") / "upper" / "old").touch()
    staged = states.stage("sbx_aaaaaaaa", "new", NOW)
    (staged.path / "upper").mkdir()
    (staged.path / "upper" / "new").touch()
    assert states.ids() == ["sbx_aaaaaaaa"]
    gone = states.install(staged)
    assert (gone / "upper" / "old").exists()
    assert (states.path("sbx_aaaaaaaa") / "upper" / "new").exists()
    assert states.load("sbx_aaaaaaaa", "x").image == "new"
    States(tmp_path / "s", ranged=False, first_id=0)
    assert not gone.exists()


def test_a_staged_state_of_no_sandbox_becomes_one(tmp_path):
    states = States(tmp_path / "s", ranged=False, first_id=0)
    staged = states.stage("sbx_aaaaaaaa", "new", NOW)
    assert states.ids() == []
    (staged.path / "upper").mkdir()
    assert states.install(staged) is None
    assert states.ids() == ["sbx_aaaaaaaa"]


def test_what_was_staged_when_we_died_is_swept(tmp_path):
    states = States(tmp_path / "s", ranged=False, first_id=0)
    states.drop(staged := states.stage("sbx_aaaaaaaa", "new", NOW))
    States(tmp_path / "s", ranged=False, first_id=0)
    assert not staged.path.exists()
