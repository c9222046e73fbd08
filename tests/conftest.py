"""What every test gets: no settings of the caller, two hypothesis profiles, root told where needed."""

import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

# The same examples in every run, so that a green run stays green; `--hypothesis-profile long` looks
# further. No deadline: a test asserts no times.
settings.register_profile("short", derandomize=True, deadline=None, max_examples=100)
settings.register_profile(
    "long", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("short")


LONG_SECONDS = 600
"""What one property may take when it is tried twenty times as often; a hung one still ends."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give properties time in the long profile; skip by name what needs root where there is none."""
    if config.getoption("--hypothesis-profile") == "long":
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker(pytest.mark.timeout(LONG_SECONDS))
    if os.geteuid() == 0:
        return
    refused = pytest.mark.skip(reason="needs root")
    for item in items:
        if item.get_closest_marker("root") is not None:
            item.add_marker(refused)


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the caller's HANDIWORK_ variables away, so that a test sees only what it sets."""
    for name in [name for name in os.environ if name.startswith("HANDIWORK_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_log_of_another_test() -> Iterator[None]:
    """Forget where a test's program sent its log: the file is closed by now."""
    yield
    structlog.reset_defaults()
