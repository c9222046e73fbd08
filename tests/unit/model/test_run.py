"""Runs and their sessions."""

from handiwork.model.ids import is_id
from handiwork.model.run import run_id_of


def test_a_run_is_named_after_its_session() -> None:
    assert run_id_of("sesn_01abcdefgh") == "run_01abcdefgh"
    assert is_id(run_id_of("sesn_01abcdefgh"))
