"""TERMINAL: what it is to a guest, and what a guest can do to it."""

import signal
import struct

import pytest

PYTHON = "/usr/bin/python3"
PATH = b"PATH=/usr/bin:/bin"


def text(value):
    return struct.pack("<I", len(value)) + value


def open_terminal(box, script, *, uid=0, columns=80, rows=24):
    request_id = next(box.ids)
    argv = [b"/bin/sh", b"-c", script.encode()]
    payload = struct.pack("<IIQII", 1, 0, 0, uid, uid) + text(b"/")
    payload += struct.pack("<I", len(argv)) + b"".join(map(text, argv))
    payload += struct.pack("<I", 1) + text(PATH) + struct.pack("<II", columns, rows)
    box.send(17, request_id, payload)
    return request_id


def refuses(call, *args, **kwargs):
    with pytest.raises(Exception) as caught:
        call(*args, **kwargs)
    return caught.value.number


def shown(box, script, **options):
    """What a terminal shows until its command ends, and the code of that."""
    request_id = open_terminal(box, script, **options)
    assert box.next_of(request_id)[0] == 65
    result = box.result(request_id)
    return result.stdout, result.code


def test_it_is_a_terminal_of_its_user_and_controlled(box):
    script = "stty size; tty -s && echo yes; stat -c %U:%a $(tty); echo on >/dev/tty; exit 3"
    assert shown(box, script) == (b"24 80\r\nyes\r\nroot:620\r\non\r\n", 3)


def test_another_users_terminal_is_theirs(open_box):
    box = open_box()
    assert shown(box, "stat -c %u $(tty); : >/dev/tty && echo on", uid=1000) == (
        b"1000\r\non\r\n",
        0,
    )


@pytest.mark.parametrize("size", [(0, 24), (80, 0), (65536, 24), (80, 2**32 - 1)])
def test_a_size_that_is_none_is_refused(box, size):
    request_id = open_terminal(box, "true", columns=size[0], rows=size[1])
    assert refuses(box.next_of, request_id) == 22


def test_a_guest_cannot_take_its_place(box):
    """A FIFO there would block whoever opened it by name."""
    for attempt in ("mv /dev/ptmx /dev/kept", "rm -f /dev/ptmx", "mkfifo /dev/pts/0"):
        assert box.run(attempt).code != 0
    assert box.run("mv /etc/hosts /etc/kept").code == 0
    assert shown(box, "echo on") == (b"on\r\n", 0)


def test_its_end_hangs_up_who_is_left(box):
    script = f"{PYTHON} -c 'import time; time.sleep(1000)' & sleep 0.3; echo end"
    assert shown(box, script) == (b"end\r\n", 0)
    still = "ps -e -o args= | grep -c '[t]ime.sleep(1000)'"
    assert (
        box.run(
            f"for i in $(seq 50); do [ $({still}) = 0 ] && break; sleep 0.1; done; {still}"
        ).stdout
        == b"0\n"
    )


def test_what_our_starter_ignored_is_not_ignored_inside(open_box):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        box = open_box()
    finally:
        signal.signal(signal.SIGHUP, before)
    ignored = box.run("grep SigIgn /proc/self/status").stdout.split()[1]
    assert int(ignored, 16) & 1 << (signal.SIGHUP - 1) == 0


def test_no_more_than_64_and_all_are_given_back(box):
    for _ in range(2):
        opened = [open_terminal(box, "read x; exit 7") for _ in range(64)]
        assert [box.next_of(request_id)[0] for request_id in opened] == [65] * 64
        assert refuses(box.next_of, open_terminal(box, "true")) == 28
        for request_id in opened:
            box.send(2, request_id, b"\n")
            assert box.result_after_credit(request_id).code == 7


def test_typing_to_who_does_not_read_is_bounded(box):
    request_id = open_terminal(box, "stty raw -echo; echo ready; sleep 1000")
    assert box.next_of(request_id)[0] == 65
    assert box.next_of(request_id)[1].startswith(b"ready")
    for _ in range(4):
        box.send(2, request_id, b"x" * 65536)
    assert box.ask(14)[0] == 75
    box.send(3, request_id, struct.pack("<i", 9))
    assert box.result_after_credit(request_id).code == 137
