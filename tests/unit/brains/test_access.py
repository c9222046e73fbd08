"""Which key a call carries, and what a failure means."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from answering_server import Server, error
from handiwork.brains.access import MAX_SHOWN_CHARS, Access, body_of, plain, told
from handiwork.model.errors import BrainRefusedError, BrainUnavailableError, UnauthorizedError
from handiwork.model.session import WorkItem

KEY = "sk-ant-oat01-environment"
TOKEN = "sk-ant-req-session"
SECRET = base64.urlsafe_b64encode(json.dumps({"sessions_token": TOKEN}).encode()).decode()
WORK = WorkItem(
    id="work_1", environment_id="env_1", kind="session", session_id="sesn_1", secret=SECRET
)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server({"sesn_1": [(200, {"id": "sesn_1"})]}).listening() as server:
        yield server


@pytest.fixture
async def access(server: Server) -> AsyncIterator[Access]:
    access = Access(environment_key=KEY, base_url=server.url)
    yield access
    await access.close()


async def read(access: Access) -> Any:
    return await access.call(
        WORK,
        "read the session",
        lambda api: api.beta.sessions.with_raw_response.retrieve(WORK.session_id),
    )


async def test_the_token_counts_between_open_and_shut(server: Server, access: Access) -> None:
    await read(access)
    access.open(WORK)
    await read(access)
    access.shut(WORK)
    await read(access)
    assert [seen.key for seen in server.seen["sesn_1"]] == [KEY, TOKEN, KEY]


async def test_a_refused_token_gives_way_to_the_key_for_good(
    server: Server, access: Access
) -> None:
    access.open(WORK)
    server.judge = lambda request: error(401) if request.key == TOKEN else None
    await read(access)
    await read(access)
    assert [seen.key for seen in server.seen["sesn_1"]] == [TOKEN, KEY, KEY]
    server.judge = lambda _: error(401)
    with pytest.raises(UnauthorizedError, match="cannot read the session: the brain answered 401"):
        await read(access)
    assert KEY not in repr(access) + str(vars(access))


async def test_a_refusal_that_is_not_about_the_key_is_not_asked_again(
    server: Server, access: Access
) -> None:
    access.open(WORK)
    server.answers["sesn_1"] = [error(400)]
    with pytest.raises(BrainRefusedError, match="as told"):
        await read(access)
    assert len(server.seen["sesn_1"]) == 1


@pytest.mark.parametrize(
    "failure",
    [anthropic.AnthropicError("x"), httpx2.ReadError("x"), ConnectionResetError("x")],
)
def test_what_never_arrived_may_be_retried(failure: Exception) -> None:
    with pytest.raises(BrainUnavailableError, match="cannot knock: "), told("knock"):
        raise failure


class _Answer:
    def __init__(self, content: bytes) -> None:
        self.http_response = httpx2.Response(200, content=content)


def test_a_body_is_an_object_or_nothing() -> None:
    assert body_of(_Answer(b'{"a": 1}'), "x") == {"a": 1}
    assert body_of(_Answer(b" \n"), "x") is None
    assert body_of(_Answer(b"null"), "x") is None
    for content in (b"[]", b'{"a"', b"\xff"):
        with pytest.raises(BrainUnavailableError, match="the brain's x is malformed"):
            body_of(_Answer(content), "x")


@given(st.text(max_size=3000))
def test_any_text_is_shown_short_and_on_one_line(text: str) -> None:
    shown = plain(text)
    assert len(shown) <= MAX_SHOWN_CHARS
    assert shown.isprintable()


@pytest.mark.parametrize("key", ["sk-ant-oat01-Ab_c-9", "whsec_ab+/c=", "hwlbenv_Xy-z_1"])
def test_a_key_that_the_brain_echoes_is_not_shown(key: str) -> None:
    shown = plain(f"bad header 'Authorization: Bearer {key}' or {key}\x1b[2J\nnext")
    assert key[8:] not in shown
    assert "\x1b" not in shown
    assert shown.endswith(" next")
