"""What every test gets: no settings of the caller, two hypothesis profiles, root told where needed."""

import gc
import os
from collections.abc import Generator, Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings
from pytest_timeout import Settings

# The same examples in every run, so that a green run stays green; `--hypothesis-profile long` looks
# further. No deadline: a test asserts no times.
settings.register_profile("short", derandomize=True, deadline=None, max_examples=100)
settings.register_profile(
    "long", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("short")


LONG_SECONDS = 600
"""What one property may take when it is tried ten times as often; a hung one still ends."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the collector of garbage away from what stays to the end: it took a fifth of the run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give properties time in the long profile; skip by name what needs root where there is none.

    Files with the tests that may take longest begin first: at the end nobody waits for one alone.
    """
    longest: dict[str, float] = {}
    for item in items:
        place = item.nodeid.partition("::")[0]
        longest[place] = max(longest.get(place, 0), _most_seconds(item))
    items.sort(key=lambda item: -longest[item.nodeid.partition("::")[0]])
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


def _most_seconds(item: pytest.Item) -> float:
    """Return what its own mark grants a slow test; nothing for one that takes no long time."""
    limit = item.get_closest_marker("timeout")
    slow = item.get_closest_marker("slow") is not None
    return float(limit.args[0]) if slow and limit and limit.args else float(slow)


REPORT_SECONDS = 60.0


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Give the report of a failure time of its own: a timer that ends in there ends the whole run."""
    if call.excinfo is None:
        return (yield)
    hook = item.config.pluginmanager.hook
    hook.pytest_timeout_cancel_timer(item=item)
    try:
        return (yield)
    finally:
        again = Settings(
            REPORT_SECONDS, "signal", func_only=False, disable_debugger_detection=False
        )
        hook.pytest_timeout_set_timer(item=item, settings=again)


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
