"""WebSockets pass the gate as requests do, and end when the server stops."""

import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from api_stand_in import Served


def place(served: Served, box: str) -> str:
    return f"ws{served.url.removeprefix('http')}{box}/terminal"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Host": "rebound.example"}, 403),
    ],
)
async def test_who_may_not_call_may_not_open_a_socket(
    served: Served, box: str, headers: dict[str, str], status: int
) -> None:
    given = headers if status == 401 else {**served.authorization, **headers}
    with pytest.raises(InvalidStatus) as refused:
        async with connect(place(served, box), proxy=None, additional_headers=given):
            pass
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body)["error"]["type"] == "unauthorized"
    assert served.sandboxes.live[box.rpartition("/")[2]].requests == []


async def test_a_page_of_ours_may(served: Served, box: str) -> None:
    headers = {**served.authorization, "Origin": served.url}
    async with connect(place(served, box), proxy=None, additional_headers=headers) as socket:
        await socket.send('{"argv": ["echo", "a"]}')
        assert await socket.recv() == b"a"


async def test_a_message_that_is_too_large_ends_it(served: Served, box: str) -> None:
    async with connect(
        place(served, box), proxy=None, additional_headers=served.authorization
    ) as socket:
        await socket.send("x" * (1024 * 1024 + 1))
        await socket.wait_closed()
        assert socket.close_code == 1009
