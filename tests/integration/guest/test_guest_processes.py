"""PROCESSES: whom it tells of, and what a guest can make of it."""

import struct
import time

PYTHON = "/usr/bin/python3"
LISTEN = "import socket, time; s = socket.create_server(('{}', 0), family={}); print(s.getsockname()[1], flush=True); time.sleep(1000)"


def survey(box, limit=0):
    """Return processes by pid, and listeners."""
    request_id = next(box.ids)
    box.send(20, request_id, struct.pack("<I", limit))
    processes, listeners = {}, []
    while True:
        kind, payload = box.next_of(request_id)
        if kind == 71:
            assert struct.unpack("<Q", payload)[0] == len(processes)
            return processes, listeners
        layout = {80: "<IIIIIQQQQI", 81: "<IIIII"}[kind]
        while payload:
            *numbers, length = struct.unpack_from(layout, payload)
            at = struct.calcsize(layout)
            tail, payload = payload[at : at + length], payload[at + length :]
            if kind == 80:
                processes[numbers[0]] = (*numbers[1:], tail)
            else:
                listeners.append((*numbers, tail.decode()))


def start(box, script, **options):
    request_id = box.start([PYTHON, "-c", script], **options)
    kind, payload = box.next_of(request_id)
    assert kind == 65
    return struct.unpack("<I", payload)[0], request_id


def test_each_is_told_and_the_agent_is_not(box):
    pid, _ = start(box, "import time; time.sleep(1000)")
    for _ in range(100):  # until it has loaded what it runs, and sleeps
        processes, listeners = survey(box)
        assert list(processes) == [pid]
        if chr(processes[pid][3]) == "S" and processes[pid][6] > 1000:
            break
        time.sleep(0.1)
    parent, uid, threads, state, tree, _, rss, _, command = processes[pid]
    assert (parent, uid, threads) == (1, 0, 1)
    assert chr(state) in "RS"
    assert tree > 0
    assert rss > 1000
    assert command == b"/usr/bin/python3\0-c\0import time; time.sleep(1000)\0"
    assert listeners == []


def test_no_more_than_were_asked_for(box):
    for _ in range(5):
        start(box, "import time; time.sleep(1000)")
    assert len(survey(box, 3)[0]) == 3
    assert len(survey(box)[0]) == 5


def test_listeners_of_both_families_and_of_another_user(open_box):
    box = open_box()
    asked = {}
    for address, family, uid in (("127.0.0.1", 2, 0), ("::1", 10, 0), ("0.0.0.0", 2, 1000)):
        pid, request_id = start(box, LISTEN.format(address, family), uid=uid, gid=uid)
        asked[pid] = (uid, 4 if family == 2 else 6, int(box.next_of(request_id)[1]), address)
    _, listeners = survey(box)
    assert {one[0]: one[1:] for one in listeners} == asked


def test_a_listener_of_who_cannot_be_looked_at_is_nobodys(open_box):
    """Its process made itself unreadable: the socket is told all the same."""
    box = open_box()
    hide = "import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0);"
    _, request_id = start(box, hide + LISTEN.format("127.0.0.1", 2))
    port = int(box.next_of(request_id)[1])
    assert survey(box)[1] == [(0, 0, 4, port, "127.0.0.1")]


def test_names_and_arguments_of_a_guest_are_only_bytes(box):
    """A name with the signs that end it in /proc, and arguments that were overwritten."""
    name = "import ctypes, time; ctypes.CDLL(None).prctl(15, b'a) R 9 9 (\\n', 0, 0, 0);"
    pid, request_id = start(box, name + "print(1, flush=True); time.sleep(1000)")
    assert box.next_of(request_id)[0] == 66
    processes, _ = survey(box)
    assert processes[pid][0] == 1
    pid, request_id = start(
        box, "print(1, flush=True); import time; time.sleep(1000) #" + "x" * 9000
    )
    assert box.next_of(request_id)[0] == 66
    assert len(survey(box)[0][pid][-1]) == 1023


def test_cancelling_and_many_at_once(box):
    start(box, "import time; time.sleep(1000)")
    asked = [next(box.ids) for _ in range(50)]
    for request_id in asked:
        box.send(20, request_id, struct.pack("<I", 0))
        box.send(15, request_id)
    for request_id in asked:
        try:
            while box.next_of(request_id)[0] != 71:
                pass
        except Exception as told:
            assert told.number == 125  # noqa: PT017
    assert len(survey(box)[0]) == 1
