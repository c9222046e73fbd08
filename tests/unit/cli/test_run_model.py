"""The model that `handiwork run` defines on the way: its address, id and key."""

import asyncio
import contextlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest

from handiwork.cli.run_model import DEFAULT_IDS, Provider, define
from handiwork.model.errors import ConfigError, HandiworkError, UnauthorizedError
from handiwork.model.wire import ModelBody


class Endpoint:
    """Lists what `body` says, and keeps the headers it was asked with."""

    def __init__(self) -> None:
        self.body, self.status, self.asked = b"", 200, []
        outer = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, dict(self.headers)))
                self.send_response(outer.status)
                self.send_header("content-length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    thread = Thread(target=endpoint.server.serve_forever, args=(0.05,))
    thread.start()
    yield endpoint
    endpoint.server.shutdown()
    thread.join()
    endpoint.server.server_close()


@pytest.fixture
def client() -> SimpleNamespace:
    """A client whose models are kept in `written`."""
    written: dict[str, ModelBody] = {}

    async def put(name: str, body: ModelBody) -> None:
        written[name] = body

    return SimpleNamespace(models=SimpleNamespace(put=put), written=written)


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)


async def test_a_name_that_is_no_kind_is_one_that_is_there(client) -> None:
    assert await define(client, Provider(kind="mine")) == "mine"
    for more in ({"base_url": "http://a"}, {"model_id": "m"}, {"key_file": Path("k")}):
        with pytest.raises(ConfigError, match="define a model of a kind"):
            await define(client, Provider(kind="mine", **more))
    assert client.written == {}


async def test_an_agent_has_its_model(client) -> None:
    assert await define(client, Provider(kind="")) == ""


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_a_key_alone_is_enough(client, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=f"{kind.upper()}_API_KEY"):
        await define(client, Provider(kind=kind))
    monkeypatch.setenv(f"{kind.upper()}_API_KEY", "sk-of-the-variable\n")
    name = await define(client, Provider(kind=kind))
    (written,) = client.written.items()
    assert written[0] == name
    assert (written[1].kind, written[1].model, written[1].key) == (
        kind,
        DEFAULT_IDS[kind],
        "sk-of-the-variable",
    )


async def test_a_key_file_of_ours_alone_outranks_the_variable(
    client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-variable")
    path = tmp_path / "key"
    path.write_text("sk-of-the-file\n")
    given = Provider(kind="openai", model_id="m", key_file=path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        await define(client, given)
    path.chmod(0o600)
    await define(client, given)
    assert [body.key for body in client.written.values()] == ["sk-of-the-file"]


@pytest.mark.parametrize(
    ("listed", "chosen"),
    [
        (b'{"data":[{"id":"only"}]}', "only"),
        (b'{"data":[{"id":"first"},{"id":"second"}]}', "first"),
        (b'{"data":[]}', "openai"),
        (b'{"data":{}}', "openai"),
        (b'{"data":[1,{"id":2},{"id":"a\\u001bb"}]}', "openai"),
        (b"[]", "openai"),
        (b"<html>", "openai"),
        (b'{"data":[{"id":"\xff"}]}', "openai"),
        (b"[" * 200_000, "openai"),
        (b'{"data":' + b"[" * 200_000, "openai"),
    ],
)
async def test_an_endpoint_is_asked_what_it_has(
    client, endpoint: Endpoint, listed: bytes, chosen: str, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.body = listed
    await define(client, Provider(kind="openai", base_url=endpoint.url + "/"))
    (body,) = client.written.values()
    assert (body.model, body.base_url, body.key) == (chosen, endpoint.url, "")
    assert endpoint.asked[0][0] == "/v1/models"
    assert ("--model-id" in capsys.readouterr().err) == (chosen != "only")


async def test_what_is_named_is_not_asked_for(client, endpoint: Endpoint) -> None:
    one = await define(client, Provider(kind="openai", base_url=endpoint.url, model_id="a"))
    two = await define(client, Provider(kind="openai", base_url=endpoint.url, model_id="b"))
    again = await define(client, Provider(kind="openai", base_url=endpoint.url, model_id="a"))
    assert (one == again, one == two, endpoint.asked) == (True, False, [])


async def test_each_kind_is_asked_with_its_own_header(
    client, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.status = 403
    for kind in ("openai", "anthropic"):
        monkeypatch.setenv(f"{kind.upper()}_API_KEY", "sk-1")
        await define(client, Provider(kind=kind, base_url=endpoint.url))
    (_, openai), (_, anthropic) = endpoint.asked
    assert openai["authorization"] == "Bearer sk-1"
    assert anthropic["x-api-key"] == "sk-1"


@pytest.mark.parametrize("url", ["http://[::1", "foo", "http://127.0.0.1:99999", "http://u:p@h"])
async def test_what_is_no_address_is_not_asked(client, url: str) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        await define(client, Provider(kind="openai", base_url=url))


@pytest.mark.parametrize("key", ["sch\u00fcssel", "a b", "a\nb"])
async def test_what_is_no_key_is_not_sent_and_not_told(
    client, endpoint: Endpoint, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ConfigError, match="printable ASCII") as refused:
        await define(client, Provider(kind="openai", base_url=endpoint.url))
    assert key not in str(refused.value)
    assert endpoint.asked == []


async def test_a_closed_port_and_a_wrong_key_are_told_at_once(
    client, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HandiworkError, match="nothing answers at"):
        await define(client, Provider(kind="openai", base_url="http://127.0.0.1:1/v1"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-key")
    endpoint.status = 401
    with pytest.raises(UnauthorizedError, match="refused the key") as refused:
        await define(client, Provider(kind="openai", base_url=endpoint.url))
    assert "sk-wrong-key" not in str(refused.value)
    assert client.written == {}


async def test_a_list_without_end_is_left_and_so_is_one_that_drips(
    client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handiwork.cli.run_model.LIST_SECONDS", 0.5)
    for piece, pause in ((b"x" * 65536, 0.0), (b" ", 0.05)):
        left = asyncio.Event()

        async def stream(
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            piece: bytes = piece,
            pause: float = pause,
            left: asyncio.Event = left,
        ) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while not writer.is_closing():
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(pause)
            writer.close()
            left.set()

        async with asyncio.timeout(20), await asyncio.start_server(stream, "127.0.0.1") as server:
            port = server.sockets[0].getsockname()[1]
            url = f"http://127.0.0.1:{port}/v1"
            await define(client, Provider(kind="openai", base_url=url))
            await left.wait()
    assert [body.model for body in client.written.values()] == ["openai", "openai"]
