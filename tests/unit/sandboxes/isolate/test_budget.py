"""What a run may say: each limit, and its words."""

import pytest

from handiwork.model.code import CodeLimits, LimitKind
from handiwork.sandboxes.isolate.budget import Budget, OverLimitError


def over(kind, text):
    class Both:
        def __enter__(self):
            self.raises = pytest.raises(OverLimitError, match=text)
            self.found = self.raises.__enter__()

        def __exit__(self, *error):
            caught = self.raises.__exit__(*error)
            assert self.found.value.kind is kind
            return caught

    return Both()


def test_frames_are_counted_by_the_second():
    budget = Budget(CodeLimits(frames_per_second=2))
    for now in (0.0, 0.9, 1.0, 1.5, 2.1):
        budget.frame(now)
    budget.frame(2.2)
    with over(LimitKind.FRAMES, "more than 2 messages in a second"):
        budget.frame(2.3)


def test_calls_and_how_many_at_once():
    budget = Budget(CodeLimits(calls=3, parallel_calls=2))
    budget.call(0)
    budget.call(1)
    with over(LimitKind.CALLS, "more than 2 calls at once"):
        budget.call(2)
    with over(LimitKind.CALLS, "more than 3 calls in one run"):
        budget.call(0)


def test_bytes_of_calls():
    budget = Budget(CodeLimits(call_mib=1))
    budget.received(1 << 20)
    with over(LimitKind.CALLS, "more than 1 MiB"):
        budget.received(1)


def test_the_log_is_cut_and_the_run_goes_on():
    budget = Budget(CodeLimits(log_kib=1))
    assert budget.log("x" * 1000)
    assert not budget.log("x" * 1000)


def test_a_result_has_a_size():
    budget = Budget(CodeLimits(output_kib=1))
    budget.output(1024)
    with over(LimitKind.OUTPUT, "larger than 1 KiB"):
        budget.output(1025)
