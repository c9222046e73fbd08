"""Work on a store that hangs ends when its owner gives up."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from handiwork.model.errors import NotFoundError, SandboxUnavailableError
from handiwork.sandboxes.snapshots.stoppable import StoppableBlobs, in_thread
from handiwork.testing.blobs import FakeBlobs


def test_it_is_the_store_while_nobody_stops_it():
    blobs = StoppableBlobs(FakeBlobs(), threading.Event())
    blobs.put("a/b", b"one")
    assert not blobs.put_if_absent("a/b", b"two")
    assert blobs.get("a/b", limit_bytes=2) == b"on"
    assert list(blobs.list("a")) == ["a/b"]
    blobs.delete("a/b")
    with pytest.raises(NotFoundError):
        blobs.get("a/b")


def test_a_call_that_hangs_is_given_up_and_none_begins_after():
    hangs, stop, kept = threading.Event(), threading.Event(), FakeBlobs()
    kept.fault = lambda _verb, _key: bool(hangs.wait(30)) and None
    blobs = StoppableBlobs(kept, stop)
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(SandboxUnavailableError, match="stopped"):
        blobs.put("a", b"x")
    asked = len(kept.asked)
    with pytest.raises(SandboxUnavailableError, match="stopped"):
        blobs.get("a")
    assert len(kept.asked) == asked
    hangs.set()


def test_a_timeout_of_the_store_is_the_stores_own():
    kept = FakeBlobs()

    def fault(_verb, _key):
        raise TimeoutError("the store's")

    kept.fault = fault
    with pytest.raises(TimeoutError, match="the store's"):
        StoppableBlobs(kept, threading.Event()).put("a", b"x")


async def test_who_is_cancelled_stops_the_thread_and_waits_for_it():
    stop, begun, ended = threading.Event(), threading.Event(), threading.Event()

    def work():
        begun.set()
        stop.wait(30)
        ended.set()
        raise SandboxUnavailableError("it was stopped")

    with ThreadPoolExecutor(1) as executor:
        task = asyncio.ensure_future(in_thread(executor, stop, work))
        await asyncio.to_thread(begun.wait, 20)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert ended.is_set()
        assert await in_thread(executor, threading.Event(), lambda: 7) == 7
