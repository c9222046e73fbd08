"""The cage of cells around code of ours: a zygote whose cells make system calls as they are told.

`LIBRARY zygote --root DIRECTORY --id NUMBER ...` with the descriptors that a zygote gets; `LIBRARY bare NUMBER`
makes the calls of that descriptor without any cage. A cell reads lists of calls, [number, six arguments], from its socket
and answers with a list of what each gave: a result, or minus its errno. `THREADS` in the environment is how many a
cell may have beside its first; the call ["threads"] starts as many as it gets.
"""

import ctypes
import json
import os
import struct
import sys
import threading

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
HOOK = ctypes.PYFUNCTYPE(None)
ROOM = ctypes.create_string_buffer(1 << 16)
"""What a call may write into: its arguments say `room` where a pointer goes."""


def threads():
    """Start as many as there may be; their number, which stays used up."""
    count = 0
    while True:
        try:
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        except RuntimeError:
            return count
        count += 1


def made(call):
    number, *arguments = call
    if number == "threads":
        return threads()
    ready = [ctypes.addressof(ROOM) if one == "room" else one for one in arguments]
    ctypes.set_errno(0)
    result = LIBC.syscall(*(ctypes.c_long(one) for one in (number, *ready)))
    return result if result != -1 else -ctypes.get_errno()


def read_exactly(count):
    data = b""
    while len(data) < count:
        more = os.read(3, count - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


def serve():
    while True:
        (length,) = struct.unpack("<I", read_exactly(4))
        told = json.dumps([made(call) for call in json.loads(read_exactly(length))]).encode()
        os.write(3, struct.pack("<I", len(told)) + told)


def main():
    if sys.argv[2] == "bare":
        os.dup2(int(sys.argv[3]), 3)
        serve()
    library = ctypes.PyDLL(sys.argv[1])
    most = ctypes.c_uint32(int(os.environ.get("THREADS", "0")))
    given = dict(zip(sys.argv[3::2], sys.argv[4::2], strict=True))
    hooks = HOOK(ctypes.pythonapi.PyOS_AfterFork_Child), HOOK(serve)
    limit = ctypes.c_uint64(1 << 30)
    root = given["--root"].encode()
    library.zygote_run(
        root, ctypes.c_uint32(int(given["--id"])), limit, ctypes.c_uint32(0), most, *hooks
    )


if __name__ == "__main__":
    main()
