"""Frames on a cell's socket, as the cell reads and writes them."""

import json
import os
import socket
import struct
import threading

import pytest

from handiwork.sandboxes.isolate.python_cell import link as module
from handiwork.sandboxes.isolate.python_cell.link import Link


class EndedError(BaseException):
    pass


@pytest.fixture
def ends(monkeypatch):
    def ended(code):
        raise EndedError(code)

    monkeypatch.setattr(os, "_exit", ended)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, Link(theirs.fileno())


def framed(value):
    text = json.dumps(value).encode()
    return struct.pack("<I", len(text)) + text


def test_frames_come_one_by_one(ends):
    host, link = ends
    host.sendall(framed({"t": "run"}) + framed([1])[:6])
    assert link.receive(None) == {"t": "run"}
    assert link.receive(0) is None
    host.sendall(framed([1])[6:])
    assert link.receive(1) == [1]


def test_a_frame_of_any_size_goes_both_ways(ends):
    host, link = ends
    large = "é" * (2 << 20)
    sending = threading.Thread(target=host.sendall, args=(framed(large),))
    sending.start()
    assert link.receive(None) == large
    sending.join()
    sending = threading.Thread(target=link.send, args=(json.dumps(large, ensure_ascii=False),))
    sending.start()
    (length,) = struct.unpack("<I", host.recv(4, socket.MSG_WAITALL))
    assert json.loads(host.recv(length, socket.MSG_WAITALL)) == large
    sending.join()


def test_half_a_pair_is_a_question_mark(ends):
    host, link = ends
    link.send('"\ud800"')
    assert host.recv(100) == struct.pack("<I", 3) + b'"?"'


def test_what_is_too_long_is_not_sent(ends, monkeypatch):
    host, link = ends
    monkeypatch.setattr(module, "FRAME_BYTES", 10)
    with pytest.raises(ValueError, match="at once"):
        link.send('"1234567890"')
    link.send('"1"')
    assert host.recv(100) == struct.pack("<I", 3) + b'"1"'


def test_without_a_host_it_ends(ends):
    host, link = ends
    host.close()
    with pytest.raises(EndedError):
        link.receive(None)
    with pytest.raises(EndedError):
        link.send("1" * 100)


def test_a_host_that_speaks_otherwise_ends_it(ends):
    host, link = ends
    host.sendall(b"\xff\xff\xff\xff")
    with pytest.raises(EndedError) as ended:
        link.receive(None)
    assert ended.value.args == (module.EXIT_BAD_FRAME,)
