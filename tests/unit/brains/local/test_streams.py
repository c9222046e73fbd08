"""Streams: gathered frames, pings, an end for those who fall behind."""

from handiwork.brains.local import streams
from handiwork.brains.local.streams import PING, Subscriber, frame


def test_a_frame_names_its_event():
    assert frame({"type": "a.b", "id": "1"}) == b'event: a.b\ndata: {"type":"a.b","id":"1"}\n\n'


async def test_frames_gather_and_the_end_comes_after_them():
    subscriber = Subscriber()
    chunks = subscriber.chunks(10)
    assert await anext(chunks) == PING
    subscriber.send(b"1")
    subscriber.send(b"2")
    subscriber.close()
    assert [chunk async for chunk in chunks] == [b"12"]


async def test_silence_is_filled_with_pings():
    chunks = Subscriber().chunks(0.001)
    assert [await anext(chunks) for _ in range(3)] == [PING] * 3
    await chunks.aclose()


async def test_a_subscriber_too_far_behind_is_disconnected(monkeypatch):
    monkeypatch.setattr(streams, "BUFFERED_FRAMES", 2)
    subscriber = Subscriber()
    for _ in range(3):
        subscriber.send(b"x")
    assert [chunk async for chunk in subscriber.chunks(1)] == [PING]


async def text_of(subscriber: Subscriber) -> bytes:
    subscriber.close()
    return b"".join([chunk async for chunk in subscriber.chunks(1)]).removeprefix(PING)


async def test_previews_go_to_who_asked_and_saw_them_begin():
    asked, other, late = Subscriber(previews=True), Subscriber(), Subscriber(previews=True)
    for subscriber in (asked, other):
        subscriber.preview("e1", b"start", True)
    for subscriber in (asked, other, late):
        subscriber.preview("e1", b"piece", False)
    assert [await text_of(each) for each in (asked, other, late)] == [b"startpiece", b"", b""]


async def test_a_preview_that_is_too_fast_stops_and_the_stream_goes_on(monkeypatch):
    monkeypatch.setattr(streams, "BUFFERED_FRAMES", 4)
    subscriber = Subscriber(previews=True)
    subscriber.preview("e1", b"start", True)
    for piece in (b"1", b"2", b"3"):
        subscriber.preview("e1", piece, False)
    subscriber.send(b"event")
    assert await text_of(subscriber) == b"start1event"
