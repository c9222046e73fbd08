"""What the control plane and the egress proxy say to each other, and the channel that carries it.

A unix stream socket. Each message is a u32 length and a u16 number of descriptors (little-endian),
then that many bytes of JSON; the descriptors (the listener of an `open`) travel beside. Either end closes the channel on
anything it cannot read, which ends the proxy: it holds no way out without its control plane.
"""

import array
import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from handiwork.model.egress import EgressBinding, EgressGrant

MAX_MESSAGE_BYTES = 8 << 20
MAX_QUEUED_MESSAGES = 4096
MAX_DESCRIPTORS = 8
_HEAD = struct.Struct("<IH")
_ROOM_FOR_DESCRIPTORS = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)


class ProxySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a proxy process works with; every bound of the data plane is a field here.

    `keys` and `audit` are its directories. `trust` is a PEM file in place of the system's public
    roots. `parent` (`host:port`) is an HTTP proxy that every public destination is reached through
    by CONNECT. `own_addresses` are refused as destinations beside those the host's interfaces have.
    `hosts` answers for names in place of the resolver; its addresses meet the same guard.
    """

    keys: str
    audit: str
    trust: str = ""
    parent: str = ""
    own_addresses: tuple[str, ...] = ()
    hosts: dict[str, tuple[str, ...]] = {}
    connect_seconds: float = 10.0
    first_byte_seconds: float = 10.0
    head_seconds: float = 30.0
    idle_seconds: float = 300.0
    pool_idle_seconds: float = 4.0
    max_bindings: int = 1024
    max_connections: int = 512
    max_requests: int = 256
    max_idle_upstream: int = 128
    max_denied_names: int = 256
    hook_seconds: float = 2.0
    dns_per_second: float = 50.0
    dns_burst: float = 200.0


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message; an answer carries the `id` of what it answers."""

    id: int


class Start(Message, frozen=True, kw_only=True, tag="start"):
    """Take up work; first message, once. The hooks' socket (O_PATH) may travel along. Answer: Ready."""

    settings: ProxySettings


class Open(Message, frozen=True, kw_only=True, tag="open"):
    """Serve a binding on the listener that travels along. Answer: Opened."""

    binding: EgressBinding
    grant: EgressGrant


class Update(Message, frozen=True, kw_only=True, tag="update"):
    """Replace a grant. Answer: Done."""

    binding_id: str
    grant: EgressGrant


class Close(Message, frozen=True, kw_only=True, tag="close"):
    """Stop serving a binding and drop its connections. Answer: Done."""

    binding_id: str


class SealKey(Message, frozen=True, kw_only=True, tag="seal_key"):
    """Ask for the public key of a tenant. Answer: Key."""

    tenant: str


class Ping(Message, frozen=True, kw_only=True, tag="ping"):
    """Ask for a sign of life. Answer: Done."""


class Ready(Message, frozen=True, kw_only=True, tag="ready"):
    """The proxy is set up."""

    pid: int


class Opened(Message, frozen=True, kw_only=True, tag="opened"):
    """The binding is served; its clients must trust this certificate (PEM)."""

    ca_certificate: str


class Key(Message, frozen=True, kw_only=True, tag="key"):
    """An X25519 public key, 32 bytes."""

    public_key: bytes


class Done(Message, frozen=True, kw_only=True, tag="done"):
    """It is so."""


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """It could not be done; nothing was changed. `config` when the request itself is wrong."""

    error: str
    config: bool = False


Request = Start | Open | Update | Close | SealKey | Ping
Reply = Ready | Opened | Key | Done | Refused


class Channel:
    """One end of the control socket, driven by the running loop; owns the socket.

    `on_message` gets each message's JSON and takes ownership of its descriptors; a ValueError (or
    msgspec error) from it closes the channel. `on_close` is called once, however it ends.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[bytes, list[int]], None],
        on_close: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_message = on_message
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._incoming = bytearray()
        self._descriptors: list[int] = []
        self._outgoing: deque[tuple[bytes, list[int]]] = deque()
        self._writing = False
        self.closed = False
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, message: Message, descriptors: tuple[int, ...] = ()) -> None:
        """Queue a message; duplicates of the descriptors travel, the caller keeps its own."""
        if self.closed:
            return
        payload = msgspec.json.encode(message)
        if len(payload) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a control message of {len(payload)} bytes is over the limit")
        if len(self._outgoing) >= MAX_QUEUED_MESSAGES:
            self.close()
            return
        copies = [os.dup(number) for number in descriptors]
        self._outgoing.append((_HEAD.pack(len(payload), len(copies)) + payload, copies))
        self._flush()

    def close(self) -> None:
        """Close at once; what is queued is lost."""
        if self.closed:
            return
        self.closed = True
        number = self._sock.fileno()
        self._loop.remove_reader(number)
        self._loop.remove_writer(number)
        self._sock.close()
        for _, descriptors in self._outgoing:
            _close_all(descriptors)
        self._outgoing.clear()
        _close_all(self._descriptors)
        self._on_close()

    def _flush(self) -> None:
        while self._outgoing:
            payload, descriptors = self._outgoing[0]
            try:
                sent = (
                    socket.send_fds(self._sock, [payload], descriptors)
                    if descriptors
                    else self._sock.send(payload)
                )
            except (BlockingIOError, InterruptedError):
                self._watch_writes(on=True)
                return
            except OSError:
                self.close()
                return
            _close_all(descriptors)
            if sent < len(payload):
                self._outgoing[0] = (payload[sent:], [])
            else:
                self._outgoing.popleft()
        self._watch_writes(on=False)

    def _watch_writes(self, *, on: bool) -> None:
        if on and not self._writing:
            self._loop.add_writer(self._sock.fileno(), self._flush)
        elif self._writing and not on:
            self._loop.remove_writer(self._sock.fileno())
        self._writing = on

    def _readable(self) -> None:
        try:
            # Not socket.recv_fds: it drops the flags, and the descriptors would be inheritable.
            data, extra, flags, _ = self._sock.recvmsg(
                262_144, _ROOM_FOR_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        self._descriptors += _carried(extra)
        self._incoming += data
        if not data or flags & socket.MSG_CTRUNC or len(self._descriptors) > MAX_DESCRIPTORS:
            self.close()
            return
        self._deliver()

    def _deliver(self) -> None:
        while not self.closed and len(self._incoming) >= _HEAD.size:
            length, count = _HEAD.unpack_from(self._incoming)
            if length > MAX_MESSAGE_BYTES or count > len(self._descriptors):
                self.close()
                return
            end = _HEAD.size + length
            if len(self._incoming) < end:
                return
            payload = bytes(self._incoming[_HEAD.size : end])
            del self._incoming[:end]
            descriptors, self._descriptors = self._descriptors[:count], self._descriptors[count:]
            try:
                self._on_message(payload, descriptors)
            except (ValueError, msgspec.MsgspecError):
                self.close()


def _carried(extra: list[tuple[int, int, bytes]]) -> list[int]:
    numbers = array.array("i")
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return list(numbers)


def _close_all(descriptors: list[Any]) -> None:
    for number in descriptors:
        os.close(number)
    descriptors.clear()
