"""What runs inside a sandbox, as its agent tells; all of it is a guest's word."""

import ipaddress
from typing import cast

from handiwork.model.sandbox import ListenerInfo, ProcessInfo, ProcessTable
from handiwork.sandboxes import frames
from handiwork.sandboxes.channel import Channel, finish
from handiwork.sandboxes.frames import Frame, FrameError

SURVEY_SECONDS = 60.0
MAX_LISTENERS = 8192
"""A process that forked many times has each of its sockets once for each of them."""

COMMAND_CHARACTERS = 1024
STATES = "RSDTtZXIKWP"
_MAX_SECONDS = 1e10
_LAST_PORT = 65_535


async def survey(channel: Channel, limit: int) -> ProcessTable:
    """Ask for the table; FrameError ends a channel that tells what cannot be."""
    most = max(1, limit)  # 0 would ask for all
    processes: list[ProcessInfo] = []
    listeners: list[ListenerInfo] = []

    def take(frame: Frame) -> None:
        if isinstance(frame, frames.Running):
            processes.extend(map(_process, frame.items))
        else:
            listeners.extend(map(_listener, cast("frames.Listeners", frame).items))
        if len(processes) > most or len(listeners) > MAX_LISTENERS:
            raise FrameError("the guest told of more processes than were asked for")

    request = await channel.open(
        frames.Processes(most),
        frames.End,
        (frames.Running, frames.Listeners),
        sink=take,
        seconds=SURVEY_SECONDS,
    )
    await finish(request, frames.Cancel())
    return ProcessTable(
        processes=tuple(sorted(processes, key=lambda one: one.pid)),
        listeners=tuple(sorted(listeners, key=lambda one: (one.port, one.address, one.pid))),
    )


def _process(found: frames.Process) -> ProcessInfo:
    state = chr(found.state) if found.state < 128 else ""
    if not state or state not in STATES:
        raise FrameError("the guest told of a process in a state that is none")
    return ProcessInfo(
        pid=found.pid,
        parent=found.parent,
        uid=found.uid,
        state=state,
        threads=found.threads,
        tree=found.tree,
        cpu_seconds=min(found.cpu_us / 1e6, _MAX_SECONDS),
        memory_kib=found.rss_kib,
        age_seconds=min(found.age_ms / 1e3, _MAX_SECONDS),
        command=_printable(found.command),
    )


def _printable(command: bytes) -> str:
    """Return the arguments as one line; what cannot be shown is a question mark."""
    text = command.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text[:COMMAND_CHARACTERS])


def _listener(found: frames.Listener) -> ListenerInfo:
    try:
        address = ipaddress.ip_address(found.address.decode("ascii"))
    except ValueError:
        raise FrameError("the guest told of an address that is none") from None
    if found.port > _LAST_PORT or address.version != found.family:
        raise FrameError("the guest told of a listener that cannot be")
    return ListenerInfo(pid=found.pid, uid=found.uid, address=str(address), port=found.port)
