"""The agent's end of a channel, driven by a test."""

import asyncio
import contextlib
import socket

from handiwork.sandboxes import frames
from handiwork.sandboxes.channel import Channel


class StandIn:
    """The agent's end, driven by the test."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.decoder = frames.Decoder(frames.TO_AGENT)
        self.queue = []

    async def next(self, kind=None):
        while not self.queue:
            data = await asyncio.wait_for(self.reader.read(65536), 5)
            if not data:
                raise EOFError
            self.queue += self.decoder.feed(data)
        found = self.queue.pop(0)
        assert kind is None or isinstance(found[1], kind), found
        return found

    def send(self, request_id, *found):
        self.writer.write(b"".join(frames.encode(request_id, frame) for frame in found))


@contextlib.asynccontextmanager
async def connected():
    """Give (channel, stand-in agent) after the greeting; `agent.lost` is what `on_lost` was told."""
    ours, theirs = socket.socketpair()
    lost = []
    channel = Channel(lost.append)
    await channel.loop.create_unix_connection(lambda: channel, sock=ours)
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    agent = StandIn(reader, writer)
    agent.lost = lost
    agent.send(0, frames.Hello(frames.VERSION, 1))
    await channel.hello(5)
    yield channel, agent
    channel.end()
    writer.close()
    await asyncio.sleep(0)
