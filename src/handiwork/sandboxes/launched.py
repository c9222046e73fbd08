"""A sandbox from its launch on: made ahead and waiting for a claim, or with a channel that serves.

What is said before the channel serves stands in `guest/PROTOCOL.md`, section 8.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from handiwork.model.errors import ConfigError, SandboxUnavailableError
from handiwork.model.sandbox import SandboxSpec
from handiwork.sandboxes.channel import Channel
from handiwork.sandboxes.host import HostProcess
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.stacks import Stack
from handiwork.sandboxes.states import Staged

BUNDLE = "bundle.pem"
STANDS, CLAIM, HOSTNAME_BYTES = b"\1", b"HWC1", 64


class Launched:
    """A launcher, our end of its sandbox's channel, and what the sandbox writes on.

    `leaf` is the name of its control groups.
    """

    def __init__(self, process: HostProcess, end: socket.socket, stack: Stack, leaf: str) -> None:
        self.process = process
        self.end = end
        self.stack = stack
        self.leaf = leaf

    async def stands_within(self, seconds: float) -> None:
        """Wait until one that is made ahead says that it waits; SandboxUnavailableError."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                said = await loop.sock_recv(self.end, 1)
        except TimeoutError:
            raise SandboxUnavailableError(f"it did not stand within {seconds:g} s") from None
        except OSError as error:
            raise SandboxUnavailableError(f"it ended: {error.strerror}") from error
        if said != STANDS:
            raise SandboxUnavailableError("it ended before it stood")

    def claim(self, spec: SandboxSpec) -> None:
        """Give one that waits its name and its exit: from now on it is this sandbox."""
        name = spec.hostname.encode()
        if spec.exit is None or len(name) > HOSTNAME_BYTES:
            raise ConfigError(
                f"a claim needs an exit, and a hostname of {HOSTNAME_BYTES} bytes at most"
            )
        message = CLAIM + name.ljust(HOSTNAME_BYTES, b"\0")
        try:
            way_out = os.open(spec.exit.socket_path, os.O_PATH | os.O_CLOEXEC)
            try:
                socket.send_fds(self.end, [message], [way_out])
            finally:
                os.close(way_out)
        except OSError as error:
            raise SandboxUnavailableError(f"it could not be claimed: {error.strerror}") from error

    async def stop(self) -> None:
        """End all of it, which the end of its channel does."""
        self.end.close()
        await self.process.stop()
        self.stack.close()


class Entry:
    """One that was made ahead and waits for a claim; `forget` deletes what it leaves on the host."""

    def __init__(
        self, launched: Launched, ahead: Staged, forget: Callable[[Staged, str], Awaitable[None]]
    ) -> None:
        self.launched = launched
        self.ahead = ahead
        self._forget = forget

    @property
    def stands(self) -> bool:
        """Whether its processes live."""
        return not self.launched.process.exited.done()

    def claim(self, spec: SandboxSpec) -> None:
        """Make it this sandbox's. The agent hardens itself while the trust of its exit is written."""
        self.launched.claim(spec)
        if spec.exit is not None:
            more = spec.exit.ca_certificate.encode()
            bundle = os.open(self.ahead.path / BUNDLE, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                os.write(bundle, more)
            finally:
                os.close(bundle)

    async def end(self) -> None:
        """End it, with all it has on the host."""
        await self.launched.stop()
        await self._forget(self.ahead, self.launched.leaf)


class Running:
    """A sandbox that has a channel; `still` holds its processes for a copy of its files."""

    def __init__(
        self,
        launched: Launched,
        channel: Channel,
        still: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        self.launched = launched
        self.channel = channel
        self.still = still

    @property
    def stack(self) -> Stack:
        """What it writes on."""
        return self.launched.stack

    async def stop(self) -> None:
        """End all of it."""
        self.channel.end()
        await self.launched.stop()


def write_bundle(path: Path, image: Image, more: str) -> None:
    """Write what the sandbox's programs trust: the image's roots, and the CA of its own exit."""
    path.write_bytes(image.roots.read_bytes().rstrip() + b"\n" + more.encode())
    path.chmod(0o644)
