"""FREEZE by the agent alone: everybody stands still, and who ran before goes on."""

import struct
import time

import pytest

PYTHON = "/usr/bin/python3"
EBUSY = 16

WAKES_ITSELF = """
import ctypes, signal
signal.signal(signal.SIGCONT, lambda *_: None)
libc = ctypes.CDLL(None)
class Event(ctypes.Structure):
    _fields_ = [("value", ctypes.c_void_p), ("number", ctypes.c_int), ("how", ctypes.c_int),
                ("rest", ctypes.c_char * 48)]
timer, event = ctypes.c_void_p(), Event(None, signal.SIGCONT, 0)
assert libc.timer_create(1, ctypes.byref(event), ctypes.byref(timer)) == 0
spec = (ctypes.c_long * 4)(0, 50_000_000, 0, 50_000_000)
assert libc.timer_settime(timer, 0, spec, None) == 0
print("ready", flush=True)
while True:
    pass
"""


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def refuses(number, call, *args):
    with pytest.raises(Exception) as caught:
        call(*args)
    assert caught.value.number == number


def freeze(box):
    request_id = next(box.ids)
    box.send(16, request_id)
    kind, payload = box.next_of(request_id)
    assert kind == 77
    return request_id, struct.unpack("<I", payload)[0]


def freeze_a_while(box):
    request_id, _ = freeze(box)
    time.sleep(0.2)
    thaw(box, request_id)


def thaw(box, request_id):
    box.send(15, request_id)
    assert box.next_of(request_id)[0] == 75


def start_counter(box, name):
    """A process that appends to a file all the time; returns its request."""
    request_id = box.start(f"while :; do echo x >>/tmp/{name}; done")
    assert wait_until(lambda: size(box, name) > 10)
    return request_id


def size(box, name):
    return box.list("/tmp").get(name, (0, 0, 0))[2]


def test_all_stand_still_and_go_on(box):
    started = [start_counter(box, name) for name in ("a", "b")]
    request_id, count = freeze(box)
    assert count >= len(started)
    before = [size(box, name) for name in ("a", "b")]
    time.sleep(0.2)
    assert [size(box, name) for name in ("a", "b")] == before
    thaw(box, request_id)
    assert wait_until(lambda: size(box, "a") > before[0] and size(box, "b") > before[1])
    for one in started:
        box.send(3, one, struct.pack("<i", 9))
        assert box.result(one).code == 137


def test_those_who_fork_all_the_time_are_held(box):
    box.start("while :; do (echo x >>/tmp/a) & (echo x >>/tmp/a) & wait; done")
    assert wait_until(lambda: size(box, "a") > 10)
    for _ in range(10):
        request_id, _ = freeze(box)
        before = size(box, "a")
        time.sleep(0.05)
        assert size(box, "a") == before
        thaw(box, request_id)
        assert wait_until(lambda before=before: size(box, "a") > before)


def test_many_threads_stand_still(box):
    script = (
        "import threading\n"
        "def spin():\n  while True: pass\n"
        "for _ in range(20): threading.Thread(target=spin, daemon=True).start()\n"
        "print('ready', flush=True)\n"
        "spin()\n"
    )
    request_id = box.start([PYTHON, "-c", script])
    assert box.next_of(request_id)[0] == 65
    assert box.next_of(request_id) == (66, b"ready\n")
    frozen, _ = freeze(box)
    time.sleep(0.1)
    thaw(box, frozen)  # OK says that nobody ran meanwhile


def test_one_at_a_time_and_nothing_starts(box):
    request_id, _ = freeze(box)
    refuses(EBUSY, freeze, box)
    refuses(EBUSY, box.run, "true")
    box.write("/tmp/file", b"written")
    thaw(box, request_id)
    assert box.run("cat /tmp/file").stdout == b"written"


def test_who_wakes_itself_is_told(box):
    """A timer sends SIGCONT every 50 ms: no stop lasts, and the host must learn of it."""
    request_id = box.start([PYTHON, "-c", WAKES_ITSELF])
    assert box.next_of(request_id)[0] == 65
    assert box.next_of(request_id) == (66, b"ready\n")
    refuses(EBUSY, freeze_a_while, box)
    box.send(3, request_id, struct.pack("<i", 9))
    assert box.result(request_id).code == 137
    thaw(box, freeze(box)[0])


def test_a_timeout_kills_in_a_frozen_sandbox(box):
    request_id = box.start("echo; while :; do :; done", timeout_ms=300)
    assert box.next_of(request_id)[0] == 65
    frozen, _ = freeze(box)
    assert box.result(request_id).flags == 1
    thaw(box, frozen)


def test_a_freeze_can_be_given_up(box):
    request_id = next(box.ids)
    box.send(16, request_id)
    box.send(15, request_id)
    answers = [box.frame()[0]]
    answers += [box.frame()[0]] if answers == [77] else []
    assert answers in ([77, 75], [76])
    assert box.run("echo on").stdout == b"on\n"
