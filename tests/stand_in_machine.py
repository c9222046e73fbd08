"""Stands in for the jail and the machine in it: answers on its ports as they do, and runs nothing.

Started as `LOG jail ... -- QEMU ...` with the descriptors that QEMU gets. Writes every order it was
given to LOG, a line each: its kind and its payload in hex; of the monitor the command. Needs nothing but Python.
"""

import json
import os
import socket
import struct
import sys
import threading
from pathlib import Path

CONTROL, CHANNEL, EXIT, MONITOR = 3, 4, 5, 6
START, CLAIM = 1, 4
READY = struct.pack("<IB", 0, 64)
HELLO = struct.pack("<IIB3xII", 8, 0, 64, 1, 1)
PING, OK, FAILED, ENOENT = 14, 75, 76, 2
HUSH = 6


def read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            os._exit(0)  # as a machine ends with its host
        data += more
    return data


def obey(log: str, channel: socket.socket, *, woken: bool) -> None:
    """One that was woken said long ago that it is ready, and says nothing before it was told something."""
    control = socket.socket(fileno=CONTROL)
    if not woken:
        control.sendall(READY)
    while True:
        length, kind = struct.unpack("<IB", read(control, 5))
        payload = read(control, length)
        with Path(log).open("a") as file:
            file.write(f"{kind}|{payload.hex()}\n")
        control.sendall(READY)
        if kind == CLAIM or (kind == START and b"--await-claim" not in payload):
            channel.sendall(HELLO)


def serve(channel: socket.socket) -> None:
    """Have no file, and be there."""
    while True:
        length, number, kind = struct.unpack("<IIB3x", read(channel, 12))
        read(channel, length)
        if kind == PING:
            channel.sendall(struct.pack("<IIB3x", 0, number, OK))
        else:
            channel.sendall(struct.pack("<IIB3xII", 8, number, FAILED, ENOENT, 0))


def let_out(port: socket.socket) -> None:
    while True:
        flow, length, kind = struct.unpack("<IHBx", read(port, 8))
        read(port, length)
        if kind == HUSH:
            port.sendall(struct.pack("<IHBx", flow, 0, HUSH))


def be_monitored(port: socket.socket, log: str) -> None:
    port.sendall(b'{"QMP": {}}\n')
    for line in port.makefile():
        command = json.loads(line)["execute"]
        with Path(log).open("a") as file:
            file.write(f"{command}|\n")
        status = {"query-migrate": "completed", "query-status": "paused"}.get(command, "")
        port.sendall(json.dumps({"return": {"status": status}}).encode() + b"\n")


def main(log: str) -> None:
    channel = socket.socket(fileno=CHANNEL)
    others = [(serve, (channel,)), (let_out, (socket.socket(fileno=EXIT),))]
    others.append((be_monitored, (socket.socket(fileno=MONITOR), log)))
    for call, arguments in others:
        threading.Thread(target=call, args=arguments, daemon=True).start()
    obey(log, channel, woken="-incoming" in sys.argv)


if __name__ == "__main__":
    main(sys.argv[1])
