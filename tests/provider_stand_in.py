"""A provider of models on loopback that speaks both wire formats and says what a test wants.

with Provider() as provider:
    provider.replies.append(openai_reply(text="hello"))
    ... base_url=provider.openai_url or provider.anthropic_url ...
    provider.requests[0].body["messages"]

Where nothing waits in `replies`, `provider.answer(request)` decides: a function of the request.
"""

import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Asked:
    """A request that arrived. `at` is the monotonic time."""

    path: str
    headers: dict[str, str]
    body: Any
    at: float


@dataclass(frozen=True)
class Reply:
    """What is answered: the pieces go out one by one, `pause` seconds before each but the first.

    `cut`: the connection is dropped instead of the body's proper end. `held`: nothing more is sent,
    and the connection stays open until the client goes.
    """

    pieces: Sequence[bytes] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "text/event-stream"
    pause: float = 0.0
    cut: bool = False
    held: bool = False


def refusal(status: int, message: str = "no", kind: str = "", **headers: str) -> Reply:
    """Return a refusal in the envelope that both formats share."""
    error = {"type": kind or "some_error", "message": message}
    body = json.dumps({"type": "error", "error": error}).encode()
    renamed = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply([body], status=status, headers=renamed, kind="application/json")


def openai_chunks(
    text: str = "",
    calls: Sequence[tuple[str, str, dict[str, Any]]] = (),
    *,
    finish: str | None = "",
    usage: tuple[int, int] | None = (10, 5),
    size: int = 4,
) -> list[dict[str, Any]]:
    """Return the chunks of an answer; a call is (id, name, input), its input comes in pieces."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
    deltas += [{"content": piece} for piece in _cut(text, size)]
    for index, (call_id, name, given) in enumerate(calls):
        function = {"name": name, "arguments": ""}
        opened = {"index": index, "id": call_id, "type": "function", "function": function}
        deltas.append({"tool_calls": [opened]})
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
            for piece in _cut(json.dumps(given), size)
        ]
    chunks: list[dict[str, Any]] = [
        {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}
        for delta in deltas
    ]
    reason = ("tool_calls" if calls else "stop") if finish == "" else finish
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    if usage is not None:
        tokens = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
        chunks.append({"choices": [], "usage": tokens})
    return chunks


def openai_frames(chunks: Iterable[Any]) -> list[bytes]:
    """Return chunks as they stand on the wire, with a comment before them and the end after."""
    frames = [b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in chunks]
    return [b": keep-alive\n\n", *frames, b"data: [DONE]\n\n"]


def openai_reply(*args: Any, **options: Any) -> Reply:
    """Return a good answer; the arguments are those of `openai_chunks`."""
    return Reply(openai_frames(openai_chunks(*args, **options)))


def anthropic_events(
    text: str = "",
    calls: Sequence[tuple[str, str, dict[str, Any]]] = (),
    *,
    stop: str = "",
    usage: tuple[int, int] = (10, 5),
    cached: tuple[int, int] = (0, 0),
    size: int = 4,
) -> list[dict[str, Any]]:
    """Return the events of an answer. `cached`: tokens read from and written to the cache."""
    counts = {
        "input_tokens": usage[0],
        "output_tokens": 1,
        "cache_read_input_tokens": cached[0],
        "cache_creation_input_tokens": cached[1],
    }
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "usage": counts}}
    ]
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    if text:
        deltas = [{"type": "text_delta", "text": piece} for piece in _cut(text, size)]
        blocks.append(({"type": "text", "text": ""}, deltas))
    for call_id, name, given in calls:
        start = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
        cut = _cut(json.dumps(given), size)
        blocks.append((start, [{"type": "input_json_delta", "partial_json": p} for p in cut]))
    for index, (start, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": d} for d in deltas]
        events.append({"type": "content_block_stop", "index": index})
    reason = stop or ("tool_use" if calls else "end_turn")
    delta = {"stop_reason": reason, "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": usage[1]}})
    return [*events, {"type": "message_stop"}]


def anthropic_frames(events: Iterable[Any]) -> list[bytes]:
    """Return events as they stand on the wire, with a ping among them."""
    frames = [
        b"event: %s\ndata: %s\n\n" % (event["type"].encode(), json.dumps(event).encode())
        for event in events
    ]
    return [*frames[:1], b'event: ping\ndata: {"type": "ping"}\n\n', *frames[1:]]


def anthropic_reply(*args: Any, **options: Any) -> Reply:
    """Return a good answer; the arguments are those of `anthropic_events`."""
    return Reply(anthropic_frames(anthropic_events(*args, **options)))


def _cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


class Provider:
    """A running server; `key` is what requests must show, where it is set."""

    def __init__(self, key: str = "") -> None:
        self.key = key
        self.requests: list[Asked] = []
        self.replies: deque[Reply] = deque()
        self.answer: Callable[[Asked], Reply] = lambda _: refusal(404, "nothing was prepared")
        self.models: list[str] | None = None
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.provider = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def anthropic_url(self) -> str:
        """What the Messages API's clients take."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def openai_url(self) -> str:
        """What clients of chat completions take."""
        return f"{self.anthropic_url}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.ending.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reply(self, asked: Asked) -> Reply:
        """Decide; called by the server."""
        if asked.path.endswith("/models"):
            if self.models is None:
                return refusal(404)
            listed = {"object": "list", "data": [{"id": name} for name in self.models]}
            return Reply([json.dumps(listed).encode()], kind="application/json")
        self.requests.append(asked)
        shown = asked.headers.get("x-api-key") or asked.headers.get("authorization", "")[7:]
        if self.key and shown != self.key:
            return refusal(401, f"Incorrect API key provided: {shown}", "authentication_error")
        return self.replies.popleft() if self.replies else self.answer(asked)


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    provider: Provider

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.ending = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes in mid-answer is what tests do."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection.settimeout(0.2)

    def parse_request(self) -> bool:
        self.connection.settimeout(10)
        return super().parse_request()

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        finally:
            self.connection.settimeout(0.2)

    def do_GET(self) -> None:
        self._send(self.server.provider.reply(self._asked(None)))

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length", 0)))
        self._send(self.server.provider.reply(self._asked(json.loads(data))))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _asked(self, body: Any) -> Asked:
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Asked(self.path.partition("?")[0], headers, body, time.monotonic())

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in {"content-type": reply.kind, **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number, piece in enumerate(reply.pieces):
            if number and reply.pause and self.server.ending.wait(reply.pause):
                break
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if reply.held:
            self._wait_until_left()
        if reply.cut or reply.held:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def _wait_until_left(self) -> None:
        while not self.server.ending.is_set():
            try:
                if not self.connection.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                return
