"""The front door of the client: two ways in, no key shown, no way in by mistake."""

import subprocess
import sys

import pytest

import handiwork
from api_stand_in import ADMIN_KEY, Served
from handiwork import Handiwork
from handiwork.model.errors import ConfigError, HandiworkError, UnauthorizedError


async def test_over_tcp_and_over_the_unix_socket(served: Served) -> None:
    async with Handiwork(base_url=served.url, api_key=ADMIN_KEY) as hw:
        assert await hw.sandboxes.list() == []
    async with Handiwork(socket=served.socket_path) as hw:
        assert await hw.sandboxes.list() == []


async def test_a_wrong_key_is_told(served: Served) -> None:
    async with Handiwork(base_url=served.url, api_key="wrong") as hw:
        with pytest.raises(UnauthorizedError, match="admin key"):
            await hw.sandboxes.list()


async def test_nobody_there_is_told_in_one_line() -> None:
    async with Handiwork(base_url="http://127.0.0.1:1", api_key="k") as hw:
        with pytest.raises(HandiworkError, match="handiwork up") as told:
            await hw.sandboxes.create()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"socket": "/s", "api_key": "k"},
        {"socket": "/s", "base_url": "http://a"},
        {"api_key": "a\n"},
    ],
)
def test_contradictions_are_refused(arguments: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        Handiwork(**arguments)  # type: ignore[arg-type]


async def test_the_key_is_not_shown(served: Served) -> None:
    async with Handiwork(base_url=served.url, api_key=ADMIN_KEY) as hw:
        assert ADMIN_KEY not in repr(hw) + str(vars(hw))
        assert served.url in repr(hw)


async def test_readiness(served: Served) -> None:
    async with Handiwork(base_url=served.url) as hw:
        assert await hw.readiness() == {"egress": "ready"}


def test_the_package_loads_nothing_it_is_not_asked_for() -> None:
    program = "import sys, handiwork; sys.exit('httpx2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    with pytest.raises(AttributeError):
        handiwork.NoSuchName  # noqa: B018
