"""CONNECT: what it reaches, what it does not, and what either side can do to it."""

import struct

import pytest

PYTHON = "/usr/bin/python3"
LISTEN = """
import socket, sys, time
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
c = s.accept()[0]
"""
WINDOW = 262_144


def serve(box, script):
    """Start a server inside; return its request and its port."""
    request_id = box.start([PYTHON, "-c", LISTEN + script])
    assert box.next_of(request_id)[0] == 65
    kind, payload = box.next_of(request_id)
    assert kind == 66
    return request_id, int(payload)


def connect(box, port, family=0):
    request_id = next(box.ids)
    box.send(19, request_id, struct.pack("<II", family, port))
    return request_id


def refusal(box, request_id):
    with pytest.raises(Exception) as caught:
        read_on(box, request_id)
    return caught.value.number


def read_on(box, request_id):
    while True:
        box.next_of(request_id)


def flood(box, request_id):
    for _ in range(400):
        box.send(7, request_id, b"x" * 65536)
    while True:
        box.frame()


def test_bytes_both_ways_and_each_side_ends(box):
    server, port = serve(box, "while d := c.recv(4096): c.sendall(d.upper())\n")
    request_id = connect(box, port)
    assert box.next_of(request_id) == (78, struct.pack("<I", 4))
    box.send(7, request_id, b"hello")
    assert box.next_of(request_id) == (70, b"HELLO")
    box.send(7, request_id)
    assert box.next_of(request_id)[0] == 79
    assert box.next_of(request_id) == (71, struct.pack("<Q", 5))
    assert box.result(server).code == 0


def test_it_goes_on_reading_when_their_side_has_ended(box):
    server, port = serve(
        box, "c.shutdown(socket.SHUT_WR)\nn = 0\nwhile d := c.recv(4096): n += len(d)\nprint(n)\n"
    )
    request_id = connect(box, port, family=4)
    assert [box.next_of(request_id)[0] for _ in range(2)] == [78, 79]
    box.send(7, request_id, b"x" * 1000)
    box.send(7, request_id)
    assert box.next_of(request_id)[0] == 71
    assert box.result(server).stdout == b"1000\n"


@pytest.mark.parametrize(
    ("family", "port", "number"),
    [(0, 9, 111), (4, 9, 111), (6, 9, 111), (0, 0, 22), (0, 65536, 22), (5, 80, 22)]
    + [(0, port, 13) for port in (53, 15001, 15053)],
)
def test_what_is_not_there_or_not_inside_is_refused(box, family, port, number):
    assert refusal(box, connect(box, port, family)) == number


def test_a_reset_is_no_end(box):
    script = (
        "c.recv(1); c.setsockopt(1, 13, b'\\1\\0\\0\\0\\0\\0\\0\\0'); c.close(); time.sleep(1000)\n"
    )
    server, port = serve(box, script)
    request_id = connect(box, port)
    assert box.next_of(request_id)[0] == 78
    box.send(7, request_id, b"x")
    assert refusal(box, request_id) in (104, 32)
    box.send(3, server, struct.pack("<i", 9))
    assert box.result(server).code == 137


def test_cancelling_resets(box):
    server, port = serve(
        box, "try: c.recv(1); print('end')\nexcept ConnectionResetError: print('reset')\n"
    )
    request_id = connect(box, port)
    assert box.next_of(request_id)[0] == 78
    box.send(15, request_id)
    assert refusal(box, request_id) == 125
    assert box.result(server).stdout == b"reset\n"


def test_nobody_reads_on_either_side(box):
    """What a server sends beyond the credit stays with it; what it does not read, with the host."""
    script = "c.setblocking(False)\nn = 0\nend = time.time() + 1\nwhile time.time() < end:\n"
    script += "    try: n += c.send(b'y' * 65536)\n    except BlockingIOError: time.sleep(0.01)\n"
    script += "print('stuck', flush=True); time.sleep(1000)\n"
    server, port = serve(box, script)
    request_id = connect(box, port)
    assert box.next_of(request_id)[0] == 78
    for _ in range(4):
        box.send(7, request_id, b"x" * 65536)
    assert box.next_of(server, timeout=60)[1] == b"stuck\n"
    got = 0
    while got < WINDOW:
        kind, payload = box.next_of(request_id)
        got += len(payload) if kind == 70 else 0
    assert got == WINDOW
    assert box.ask(14)[0] == 75
    assert box.run("echo on").stdout == b"on\n"


def test_more_than_the_window_ends_the_channel(open_box):
    box = open_box()
    _, port = serve(box, "time.sleep(1000)\n")
    request_id = connect(box, port)
    assert box.next_of(request_id)[0] == 78
    with pytest.raises(Exception) as caught:
        flood(box, request_id)
    assert type(caught.value).__name__ in ("Ended", "BrokenPipeError", "ConnectionResetError")


def test_a_server_that_does_not_accept_is_given_up(box):
    """A full queue of connections answers nobody; the agent waits 10 s and serves others meanwhile."""
    script = "import socket, time\ns = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(0)\n"
    script += "print(s.getsockname()[1], flush=True); time.sleep(1000)\n"
    server = box.start([PYTHON, "-c", script])
    assert box.next_of(server)[0] == 65
    port = int(box.next_of(server)[1])
    last = [connect(box, port) for _ in range(4)][-1]
    assert box.run("echo on").stdout == b"on\n"
    assert refusal(box, last) == 110
