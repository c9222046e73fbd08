"""Stands in for the program of cells: speaks its control protocol, and its cells are descriptors that it keeps.

Started as `MODE zygote --root ...` with the control socket as descriptor 3. Needs nothing but Python.
Whatever a cell is told to run is done at once. One that is asked to end has ended; one whose other end is closed has too.
"""

import contextlib
import os
import select
import socket
import struct
import sys
import time

REQUEST, REPORT = struct.Struct("<IIQQ"), struct.Struct("<IIIIQ")
FORK, END, HELLO, FORKED, ENDED = b"FEHfe"
BITS, AGAIN = 15, 11
_VALUE = b'{"t":"done","ok":true,"v":null}'
DONE = struct.pack("<I", len(_VALUE)) + _VALUE


def tell(control: socket.socket, kind: int, cell: int = 0, cause: int = 0, value: int = 0) -> None:
    control.send(REPORT.pack(kind, cell, cause, value, 0))


def fork(control: socket.socket, mode: str, cells: dict[int, int], number: int, given: int) -> None:
    if mode == "slow":
        time.sleep(0.5)
    if mode == "full":
        os.close(given)
        tell(control, FORKED, value=AGAIN)
        return
    cells[number] = given
    tell(control, FORKED, number)
    if mode == "stillborn":
        os.close(cells.pop(number))
        tell(control, ENDED, number, 0, 1)


def obey(control: socket.socket, mode: str, cells: dict[int, int], made: list[int]) -> None:
    message, descriptors, _, _ = socket.recv_fds(control, REQUEST.size, 1)
    if not message:
        sys.exit(0)
    kind, cell, _, _ = REQUEST.unpack(message)
    if kind == FORK:
        made.append(len(made))
        fork(control, mode, cells, made[-1], descriptors[0])
    elif kind == END and cell in cells:
        os.close(cells.pop(cell))
        tell(control, ENDED, cell, 1, 137)


def answer_or_end(control: socket.socket, cells: dict[int, int], ready: list[int]) -> None:
    for number, descriptor in list(cells.items()):
        if descriptor not in ready:
            continue
        if os.read(descriptor, 1 << 16):
            os.write(descriptor, DONE)
        else:
            os.close(cells.pop(number))
            tell(control, ENDED, number, 0, 0)


def main(mode: str) -> None:
    control = socket.socket(fileno=3)
    if mode == "broken":
        sys.exit("cell: it is broken")
    if mode == "mute":
        time.sleep(60)
    if mode == "babbling":
        control.send(b"?")
    tell(control, HELLO, value=BITS)
    cells: dict[int, int] = {}
    made: list[int] = []
    with contextlib.suppress(ConnectionError, BrokenPipeError):
        while True:
            ready, _, _ = select.select([3, *cells.values()], [], [])
            answer_or_end(control, cells, ready)
            if 3 in ready:
                obey(control, mode, cells, made)


if __name__ == "__main__":
    main(sys.argv[1])
