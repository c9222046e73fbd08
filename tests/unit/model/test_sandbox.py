"""Sizes of sandboxes: by a name or exact, not both; which tier is weaker than which."""

import pytest

from handiwork.model.errors import ConfigError
from handiwork.model.sandbox import SIZES, TIERS, Limits, is_weaker, limits_of


def test_a_size_an_exact_one_or_none() -> None:
    exact = Limits(memory_mib=300, cpu_percent=50, disk_mib=700)
    assert limits_of("", None) is None
    assert limits_of("", exact) == exact
    assert limits_of("standard", None) == Limits()
    small, large = limits_of("small", None), limits_of("large", None)
    assert small is not None
    assert large is not None
    for name in ("memory_mib", "disk_mib", "cpu_percent", "pids"):
        assert getattr(small, name) < getattr(Limits(), name) < getattr(large, name)


@pytest.mark.parametrize(
    ("size", "exact", "said"),
    [
        ("huge", None, "small, standard, large"),
        ("small", Limits(), "not both"),
        ("", Limits(memory_mib=0), "memory_mib = 0"),
        ("", Limits(disk_mib=-1), "disk_mib"),
        ("", Limits(pids=1 << 25), "pids"),
        ("", Limits(disk_read_mib_per_second=0), "disk_read_mib_per_second = 0"),
    ],
)
def test_what_cannot_be_is_told(size: str, exact: Limits | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        limits_of(size, exact)


def test_rates_of_a_disk_are_none_or_limits() -> None:
    assert limits_of("", Limits()) == Limits()
    assert Limits().disk_rates() == {}
    assert Limits(disk_write_mib_per_second=2).disk_rates() == {"write": 2 << 20}
    assert limits_of("", Limits(disk_read_mib_per_second=1)) is not None


def test_sizes_are_frozen_limits() -> None:
    assert set(SIZES) == {"small", "standard", "large"}


@pytest.mark.parametrize(
    ("minimum", "weaker"),
    [
        ("", set()),
        ("namespace", set()),
        ("gvisor", {"namespace", "isolate"}),
        ("microvm", {"namespace", "isolate", "gvisor"}),
    ],
)
def test_order(minimum: str, weaker: set[str]) -> None:
    assert {tier for tier in TIERS if is_weaker(tier, minimum)} == weaker
