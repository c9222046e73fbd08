"""Blocking work on blobs that its owner can give up at any moment, however slow the store is.

A call of a store that is given up goes on in a thread of its own, which nothing waits for: what it
still writes is a pack that no manifest names, or a manifest that is whole.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

from handiwork.model.errors import SandboxUnavailableError
from handiwork.store.blobs import Blobs

T = TypeVar("T")

LOOK_SECONDS = 0.05


class StoppableBlobs:
    """Implements `store.blobs.Blobs` on another; each call ends soon after `stop` is set."""

    def __init__(self, blobs: Blobs, stop: threading.Event) -> None:
        self._blobs = blobs
        self._stop = stop

    def put(self, key: str, data: bytes) -> None:
        """Keep bytes durably under a key."""
        self._waited(lambda: self._blobs.put(key, data))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Keep bytes durably unless the key is taken."""
        return self._waited(lambda: self._blobs.put_if_absent(key, data))

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        """Return the bytes of a key."""
        return self._waited(lambda: self._blobs.get(key, limit_bytes=limit_bytes))

    def list(self, prefix: str) -> Iterator[str]:
        """Yield every key below a prefix."""
        yield from self._waited(lambda: [*self._blobs.list(prefix)])

    def delete(self, key: str) -> None:
        """Forget a key."""
        self._waited(lambda: self._blobs.delete(key))

    def _waited(self, call: Callable[[], T]) -> T:
        done: Future[T] = Future()
        self._refuse_stopped()
        threading.Thread(target=_run, args=(call, done), daemon=True, name="blobs").start()
        while True:
            try:
                return done.result(LOOK_SECONDS)
            except TimeoutError:
                if done.done():  # the store's own
                    raise
                self._refuse_stopped()

    def _refuse_stopped(self) -> None:
        if self._stop.is_set():
            raise SandboxUnavailableError("it was stopped before the store of snapshots answered")


def _run(call: Callable[[], T], done: "Future[T]") -> None:
    try:
        done.set_result(call())
    except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
        done.set_exception(error)


async def in_thread(executor: Executor | None, stop: threading.Event, call: Callable[[], T]) -> T:
    """Run a blocking call, in one of the loop's own threads where no others are given.

    Whoever is cancelled stops it and goes on when it has ended.
    """
    return await to_its_end(asyncio.get_running_loop().run_in_executor(executor, call), stop)


async def to_its_end(task: "asyncio.Future[T]", stop: threading.Event) -> T:
    """Wait for what may not be left half done; whoever is cancelled stops it and goes on when it ended."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                continue
        if not task.cancelled():
            task.exception()
        raise
