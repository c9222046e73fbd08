"""Resolve, check, dial: the only way by which the proxy makes a connection to anywhere."""

import asyncio
import errno
import ipaddress
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from handiwork.egress import addresses
from handiwork.egress.control import ProxySettings
from handiwork.egress.resolver import ResolveError, Resolver
from handiwork.model.policy import Decision, EgressRequest

GUARD = "address-guard"
_MAX_ADDRESSES = 8
_MAX_CONTEXTS = 256
_MAX_PARENT_HEAD = 16_384
_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)


class Destination(NamedTuple):
    """Where a request goes; equal ones may share a connection.

    `address` is empty for a public name, which is resolved; a service has one, and `dial_port`,
    and may have roots of its own. `host` is what the certificate must name, always.
    """

    scheme: str
    host: str
    port: int
    address: str = ""
    dial_port: int = 0
    trust_anchor: str = ""


class DialError(Exception):
    """No connection was made. `status` is what the guest is told; `guard` when we refused it."""

    def __init__(self, status: int, reason: str, *, guard: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.guard = guard


def destination_of(request: EgressRequest, decision: Decision) -> Destination:
    """Return where a permitted request is to be sent."""
    service = decision.service
    if service is None:
        return Destination(request.scheme, request.host, request.port)
    return Destination(
        request.scheme,
        request.host,
        request.port,
        service.address,
        service.port,
        service.trust_anchor or "",
    )


class Dialer:
    """Makes checked connections; TLS to the decided name is verified, always."""

    def __init__(self, settings: ProxySettings) -> None:
        self._settings = settings
        self._resolver = Resolver(settings.hosts, seconds=settings.connect_seconds)
        self._own = frozenset(settings.own_addresses)
        self._public = _client_context(settings.trust, "")
        self._anchored: OrderedDict[str, ssl.SSLContext] = OrderedDict()

    async def connect(
        self, to: Destination, factory: Callable[[], _Protocol]
    ) -> tuple[_Protocol, str]:
        """Connect, handshake, and return the protocol with the address that was dialled."""
        try:
            async with asyncio.timeout(self._settings.connect_seconds):
                if self._settings.parent and not to.address:
                    return await self._through_parent(to, factory)
                return await self._directly(to, factory)
        except TimeoutError:
            raise DialError(504, f"{to.host}:{to.port} did not connect in time") from None
        except ResolveError as error:
            raise DialError(502, str(error)) from None
        except ssl.SSLCertVerificationError as error:
            reason = f"the certificate of {to.host} is not valid: {error.verify_message}"
            raise DialError(502, reason) from None
        except ssl.SSLError as error:
            raise DialError(502, f"TLS with {to.host} failed: {error.reason}") from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise DialError(502, f"{to.host}:{to.port} cannot be reached: {reason}") from None

    def close(self) -> None:
        """Let the resolver end."""
        self._resolver.close()

    async def _directly(
        self, to: Destination, factory: Callable[[], _Protocol]
    ) -> tuple[_Protocol, str]:
        port = to.dial_port or to.port
        last = OSError(errno.EHOSTUNREACH, "no address")
        for address in (to.address,) if to.address else await self._checked(to.host):
            sock = _socket_for(address)
            try:
                await asyncio.get_running_loop().sock_connect(sock, (address, port))
            except OSError as error:
                sock.close()
                last = error
                continue
            except BaseException:
                sock.close()
                raise
            return await self._secure(to, factory, sock), address
        raise last

    async def _checked(self, host: str) -> tuple[str, ...]:
        """Resolve once; one refused address refuses the name, so that no order of answers helps."""
        literal = _literal(host)
        found = (literal,) if literal else await self._resolver.addresses(host)
        for address in found[:_MAX_ADDRESSES]:
            reason = addresses.refuse(address, own=self._own)
            if reason is None and _is_ours(address):
                reason = f"{address} is this host's own address"
            if reason is not None:
                raise DialError(403, f"{host} leads nowhere permitted: {reason}", guard=True)
        return found[:_MAX_ADDRESSES]

    async def _secure(
        self, to: Destination, factory: Callable[[], _Protocol], sock: socket.socket
    ) -> _Protocol:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        try:
            if to.scheme == "https":
                _, protocol = await loop.create_connection(
                    factory, sock=sock, ssl=self._context(to), server_hostname=to.host
                )
            else:
                _, protocol = await loop.create_connection(factory, sock=sock)
        except BaseException:
            sock.close()
            raise
        return protocol

    async def _through_parent(
        self, to: Destination, factory: Callable[[], _Protocol]
    ) -> tuple[_Protocol, str]:
        """Ask the parent proxy for a tunnel; it resolves, so only literals can be checked here."""
        if _literal(to.host):
            await self._checked(to.host)
        host, _, port = self._settings.parent.rpartition(":")
        loop = asyncio.get_running_loop()
        (address, *_) = (
            (host,) if _literal(host) else await self._resolver.addresses(host.strip("[]"))
        )
        sock = _socket_for(address)
        try:
            await loop.sock_connect(sock, (address, int(port)))
            await _ask_parent(sock, to)
        except BaseException:
            sock.close()
            raise
        return await self._secure(to, factory, sock), address

    def _context(self, to: Destination) -> ssl.SSLContext:
        if not to.trust_anchor:
            return self._public
        found = self._anchored.get(to.trust_anchor)
        if found is None:
            try:
                found = _client_context("", to.trust_anchor)
            except (ssl.SSLError, ValueError):
                raise DialError(
                    502, f"the trust anchor of {to.host} is not a certificate"
                ) from None
            self._anchored[to.trust_anchor] = found
            if len(self._anchored) > _MAX_CONTEXTS:
                self._anchored.popitem(last=False)
        return found


async def _ask_parent(sock: socket.socket, to: Destination) -> None:
    """Have a CONNECT answered by 200, and read nothing of what follows it."""
    loop = asyncio.get_running_loop()
    authority = f"[{to.host}]:{to.port}" if ":" in to.host else f"{to.host}:{to.port}"
    head = f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n"
    await loop.sock_sendall(sock, head.encode("ascii"))
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        more = await loop.sock_recv(sock, 1)
        answer += more
        if not more or len(answer) > _MAX_PARENT_HEAD:
            raise DialError(502, "the parent proxy closed the connection")
    if answer.split(b"\r\n", 1)[0].split(b" ")[1:2] != [b"200"]:
        raise DialError(502, f"the parent proxy refused {authority}")


def _client_context(file: str, anchor: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks name and chain by default
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if anchor:
        context.load_verify_locations(cadata=anchor)
    elif file:
        context.load_verify_locations(cafile=file)
    else:
        context.load_default_certs()
    return context


def _socket_for(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


def _literal(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return ""


def _is_ours(address: str) -> bool:
    """Say whether an interface of this host has the address: only then can it be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
