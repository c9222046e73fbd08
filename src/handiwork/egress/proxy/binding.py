"""One binding as the proxy serves it: its listener, its grant, its connections, its names."""

import asyncio
import contextlib
import socket
import ssl
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from handiwork.egress import dns
from handiwork.egress.ca import Authority
from handiwork.egress.canonical import NotCanonical, canonical_host, is_address
from handiwork.egress.control import ProxySettings
from handiwork.egress.proxy import entry
from handiwork.egress.proxy.dial import Dialer
from handiwork.egress.proxy.flow import Flow, Origin
from handiwork.egress.proxy.grants import Granted
from handiwork.egress.proxy.hook_link import HookLink
from handiwork.egress.proxy.questions import Questions
from handiwork.egress.proxy.upstream import Pool
from handiwork.egress.secrets import Opener
from handiwork.model.audit import AuditRecord
from handiwork.model.egress import EgressBinding, EgressGrant
from handiwork.observe import log

PROTOCOL, SNI, NAMES = "protocol", "tls-name", "names"
_ACCEPTS_A_TURN = 64
_PAUSE_SECONDS = 0.2
_LIMIT_NOTED_SECONDS = 1.0


@dataclass(frozen=True)
class Plane:
    """What all bindings of a process share.

    `clock` counts seconds finely, for durations; `spawn` gives a coroutine its owner.
    """

    settings: ProxySettings
    loop: asyncio.AbstractEventLoop
    dialer: Dialer
    opener: Opener
    ca_root: bytes
    now: Callable[[], datetime]
    clock: Callable[[], float]
    new_id: Callable[[], str]
    append: Callable[[AuditRecord], None]
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    hooks: HookLink


class Connection(Protocol):
    """What a binding knows of each connection that came through it."""

    def abort(self) -> None:
        """Drop it now."""

    def overdue(self, now: float) -> None:
        """End it when it has been silent for too long."""


class LiveBinding:
    """Serves one listener until it is closed; everything it opened ends with it."""

    def __init__(
        self, plane: Plane, identity: EgressBinding, grant: EgressGrant, listener: socket.socket
    ) -> None:
        self.plane = plane
        self.identity = identity
        self.settings = plane.settings
        self.loop = plane.loop
        self.dialer = plane.dialer
        self.granted = Granted(grant, identity.tenant, plane.opener)
        self.pool = Pool(
            max_idle=plane.settings.max_idle_upstream,
            idle_seconds=plane.settings.pool_idle_seconds,
        )
        self.requests = 0
        self.decoding = 0
        self.closed = False
        self._authority = Authority(
            plane.ca_root, identity.ca_id, identity.ca_generation, now=plane.now
        )
        self._listener = listener
        self._connections: set[Connection] = set()
        self._entering: set[socket.socket] = set()
        self._hosts: weakref.WeakKeyDictionary[ssl.SSLContext, str] = weakref.WeakKeyDictionary()
        self._servers: dict[str, ssl.SSLContext] = {}
        self._denied: set[str] = set()
        self._names = dns.FakeNames(seed=f"{identity.ca_id} {identity.ca_generation}".encode())
        self._dns_allowance = plane.settings.dns_burst
        self._dns_at = 0.0
        self._limit_noted = 0.0
        self._log = log.get("egress.proxy")
        listener.setblocking(False)
        self.loop.add_reader(listener.fileno(), self._accept)

    @property
    def ca_certificate(self) -> str:
        """What the guests must trust (PEM)."""
        return str(self._authority.certificate_pem)

    def update(self, grant: EgressGrant) -> None:
        """Put another grant in force; raises ConfigError and changes nothing for a bad one."""
        self.granted = Granted(grant, self.identity.tenant, self.plane.opener)
        self._denied.clear()
        for connection in list(self._connections):
            if isinstance(connection, Flow):
                self._try("update", connection, connection.reconsider)

    def close(self) -> None:
        """Stop accepting and drop every connection."""
        if self.closed:
            return
        self.closed = True
        self.loop.remove_reader(self._listener.fileno())
        self._listener.close()
        for sock in self._entering:
            with contextlib.suppress(OSError):  # gone already
                sock.shutdown(socket.SHUT_RDWR)
        for connection in list(self._connections):
            self._try("close", connection, connection.abort)
        self.pool.close()

    def sweep(self, now: float) -> None:
        """End what is overdue."""
        for connection in list(self._connections):
            self._try("sweep", connection, partial(connection.overdue, now))
        self.pool.sweep(now)

    def _try(self, where: str, connection: Connection, act: Callable[[], None]) -> None:
        """Do something of one connection; a fault in it is logged and ends that one, and no other."""
        try:
            act()
        except Exception as error:  # noqa: BLE001 - one guest's bytes must not end the process
            self.fault(where, error)
            self._connections.discard(connection)
            if where != "abort":
                self._try("abort", connection, connection.abort)

    # What flows and exchanges use.

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine of this binding; its faults are logged, not raised."""
        self.plane.spawn(self._guarded(work))

    def gone(self, connection: Connection) -> None:
        """Forget a connection that was lost."""
        self._connections.discard(connection)

    def fault(self, where: str, error: BaseException) -> None:
        """Log an error of ours by its kind and place; its text could hold a guest's bytes."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        line = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
        self._log.error("fault", where=where, error=type(error).__name__, at_line=line)

    def record(self, *, kind: str, allowed: bool, rules: tuple[str, ...], **facts: Any) -> None:
        """Write one audit record of this binding; `facts` are fields of AuditRecord."""
        identity, plane = self.identity, self.plane
        plane.append(
            AuditRecord(
                id=plane.new_id(),
                at=plane.now(),
                tenant=identity.tenant,
                binding=identity.id,
                sandbox_id=identity.sandbox_id,
                session_id=identity.session_id,
                agent_id=identity.agent_id,
                tool=identity.tool,
                tool_use_id=identity.tool_use_id,
                kind=kind,
                allowed=allowed,
                rules=rules,
                **facts,
            )
        )

    # From accept to the protocol that carries on.

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError:  # no descriptors: leave it in the backlog for a moment
                self.loop.remove_reader(self._listener.fileno())
                self.loop.call_later(_PAUSE_SECONDS, self._resume)
                return
            if len(self._connections) + len(self._entering) >= self.settings.max_connections:
                sock.close()
                self._note_limit()
                continue
            sock.setblocking(False)
            self._entering.add(sock)
            self.spawn(self._enter(sock))

    def _resume(self) -> None:
        if not self.closed:
            self.loop.add_reader(self._listener.fileno(), self._accept)

    def _note_limit(self) -> None:
        now = self.loop.time()
        if now - self._limit_noted > _LIMIT_NOTED_SECONDS:
            self._limit_noted = now
            reason = f"over {self.settings.max_connections} connections"
            self.record(kind="tcp", allowed=False, rules=("limits",), reason=reason)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - one guest's bytes must not end the process
            self.fault("connection", error)

    async def _enter(self, sock: socket.socket) -> None:
        handed_over = False
        try:
            handed_over = await self._admit(sock)
        except (OSError, EOFError, TimeoutError, entry.BadPreambleError) as error:
            if isinstance(error, entry.BadPreambleError):
                self.record(kind="tcp", allowed=False, rules=(PROTOCOL,), reason=str(error))
        finally:
            self._entering.discard(sock)
            if not handed_over:
                sock.close()

    async def _admit(self, sock: socket.socket) -> bool:
        """Find out what came; return whether a transport owns the socket now."""
        told = await entry.read_preamble(sock, self.settings.first_byte_seconds)
        if isinstance(told, bytes):
            return await self._hand_over(sock, Flow(self, Origin("absolute"), told), None)
        if told.kind == "dns":
            await self.loop.sock_sendall(sock, entry.GO_ON)
            return await self._hand_over(
                sock, Questions(self._answer, self._touch, self.gone), None
            )
        reason = self._unreachable(told)
        if reason:
            self._refuse_captured(told, reason)
            await self.loop.sock_sendall(sock, entry.REFUSED)
            return False
        await self.loop.sock_sendall(sock, entry.GO_ON)
        first = await entry.first_byte(sock, self.settings.first_byte_seconds)
        if first == entry.TLS_HANDSHAKE:
            return await self._intercept(sock, told)
        if first is None or not chr(first).isalpha():
            self._refuse_captured(told, "neither TLS nor HTTP came, and nothing else may pass")
            return False
        return await self._hand_over(sock, Flow(self, Origin("clear", "", told.port)), None)

    def _unreachable(self, told: entry.Preamble) -> str:
        """Say why no name could make this flow permitted; names are judged later, by request."""
        policy = self.granted.policy
        name = self._names.name(told.address)
        if name is not None:
            return (
                ""
                if policy.may_reach(name, port=told.port)
                else f"no rule permits {name}:{told.port}"
            )
        return "" if told.port in self.granted.ports else f"no rule permits port {told.port}"

    def _refuse_captured(self, told: entry.Preamble, reason: str) -> None:
        self.record(
            kind="tcp",
            allowed=False,
            rules=(PROTOCOL,),
            reason=reason,
            host=self._names.name(told.address) or "",
            address=told.address,
            port=told.port,
        )

    async def _intercept(self, sock: socket.socket, told: entry.Preamble) -> bool:
        literal = told.address if self.granted.policy.may_reach(told.address) else ""
        protocol = _Secured(self, sock, told.port)
        try:
            return await self._hand_over(sock, protocol, self._server(literal))
        except (ssl.SSLError, OSError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            self.record(
                kind="tls",
                allowed=False,
                rules=(SNI,),
                reason=f"no TLS to a name that could be served: {reason}",
                address=told.address,
                port=told.port,
            )
            return True

    async def _hand_over(
        self, sock: socket.socket, protocol: asyncio.Protocol, tls: ssl.SSLContext | None
    ) -> bool:
        if self.closed:
            return False
        if isinstance(protocol, Flow | Questions):  # else a handshake: see `adopt`
            self._entering.discard(sock)
            self._connections.add(protocol)
        try:
            await self.loop.connect_accepted_socket(
                lambda: protocol,
                sock,
                ssl=tls,
                ssl_handshake_timeout=self.settings.first_byte_seconds if tls else None,
                ssl_shutdown_timeout=1.0 if tls else None,
            )
        except BaseException:  # nobody tells one that was never connected that it is gone
            if isinstance(protocol, Flow | Questions):
                self._connections.discard(protocol)
            raise
        return True

    def adopt(
        self, transport: asyncio.BaseTransport, sock: socket.socket, port: int
    ) -> Flow | None:
        """Make the flow of a connection whose handshake is done; it counts once all the time."""
        self._entering.discard(sock)
        tls = transport.get_extra_info("ssl_object")
        host = self._hosts.get(tls.context) if tls is not None else None
        if host is None or self.closed:
            return None
        flow = Flow(self, Origin("tls", host, port))
        self._connections.add(flow)
        return flow

    # TLS names.

    def _server(self, literal: str) -> ssl.SSLContext:
        """Return the context that greets: it only picks the certificate by the name asked for."""
        found = self._servers.get(literal)
        if found is None:
            found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            found.minimum_version = ssl.TLSVersion.TLSv1_2
            found.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
            found.num_tickets = 0
            found.set_alpn_protocols(["http/1.1"])
            found.sni_callback = lambda tls, name, _: self._pick(tls, name, literal)
            self._servers[literal] = found
        return found

    def _pick(self, tls: ssl.SSLObject, name: str | None, literal: str) -> int | None:
        """Give the handshake a leaf; denied names get one too, up to a cap, to be told why."""
        try:
            host = canonical_host(name or literal)
        except NotCanonical:
            return int(ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME)
        if is_address(host) and host != literal:
            return int(ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME)
        if not self.granted.policy.may_reach(host, scheme="https") and host not in self._denied:
            if len(self._denied) >= self.settings.max_denied_names:
                return int(ssl.AlertDescription.ALERT_DESCRIPTION_ACCESS_DENIED)
            self._denied.add(host)
        context = self._authority.context(host)
        self._hosts[context] = host
        tls.context = context
        return None

    # DNS.

    def _touch(self, questions: Questions) -> None:
        questions.touched = self.loop.time()

    def _answer(self, query: bytes) -> bytes:
        now = self.loop.time()
        settings = self.settings
        self._dns_allowance = min(
            settings.dns_burst,
            self._dns_allowance + (now - self._dns_at) * settings.dns_per_second,
        )
        self._dns_at = now
        if self._dns_allowance < 1.0:
            return b""
        self._dns_allowance -= 1.0
        reply, fact = dns.answer(query, self._names, self.granted.policy.may_reach)
        if fact.outcome in ("denied", "exhausted", "malformed"):
            self._note_name(fact)
        return reply

    def _note_name(self, fact: dns.DnsFact) -> None:
        """Record each refused name once, and no more of them than there is room for."""
        key = f"dns {fact.outcome} {fact.name}"
        if key in self._denied or len(self._denied) >= self.settings.max_denied_names:
            return
        self._denied.add(key)
        reason = {
            "denied": "no rule could permit this name",
            "exhausted": "no more names for this sandbox",
        }.get(fact.outcome, "not a question of the name service")
        self.record(
            kind="dns",
            allowed=False,
            rules=(NAMES,),
            reason=reason,
            host=fact.name,
            method=fact.type,
        )


class _Secured(asyncio.Protocol):
    """Stands in during a handshake; hands the connection to the flow of the name asked for."""

    def __init__(self, binding: LiveBinding, sock: socket.socket, port: int) -> None:
        self._binding = binding
        self._sock = sock
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Make the flow, or close a connection that has no name."""
        flow = self._binding.adopt(transport, self._sock, self._port)
        if flow is None:
            transport.close()
            return
        transport.set_protocol(flow)
        flow.connection_made(transport)
