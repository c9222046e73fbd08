"""Names to addresses, on the host's own resolver, bounded in threads, waiting questions and time."""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

THREADS = 8
MAX_WAITING = 256
MAX_KEPT = 1024
KEPT_SECONDS = 5.0


class ResolveError(OSError):
    """The name has no address that we could learn; the text says why."""


class Resolver:
    """Resolves names; answers are kept for seconds, and one question is asked once at a time.

    `hosts` answers before the system does.
    """

    def __init__(self, hosts: Mapping[str, tuple[str, ...]], *, seconds: float) -> None:
        self._hosts = hosts
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="resolve")
        self._kept: OrderedDict[str, tuple[float, tuple[str, ...]]] = OrderedDict()
        self._asking: dict[str, asyncio.Future[tuple[str, ...]]] = {}

    async def addresses(self, name: str) -> tuple[str, ...]:
        """Return the addresses of a canonical name (not a literal), at least one."""
        found = self._hosts.get(name)
        if found:
            return found
        loop = asyncio.get_running_loop()
        kept = self._kept.get(name)
        if kept is not None and kept[0] > loop.time():
            return kept[1]
        question = self._asking.get(name)
        if question is None:
            if len(self._asking) >= MAX_WAITING:
                raise ResolveError(f"too many names wait for the resolver to ask for {name}")
            question = loop.run_in_executor(self._threads, _ask_system, name)
            self._asking[name] = question
            question.add_done_callback(lambda done: self._learned(name, done, loop.time()))
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(question)
        except TimeoutError:
            raise ResolveError(f"the resolver did not answer in time for {name}") from None

    def close(self) -> None:
        """Let the threads end; what they still learn is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _learned(self, name: str, question: asyncio.Future[tuple[str, ...]], now: float) -> None:
        self._asking.pop(name, None)
        if question.cancelled() or question.exception() is not None:
            return
        self._kept[name] = (now + KEPT_SECONDS, question.result())
        self._kept.move_to_end(name)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)


def _ask_system(name: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ResolveError(f"{name} could not be resolved: {error}") from None
    addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
    if not addresses:
        raise ResolveError(f"{name} has no address")
    return tuple(addresses)
