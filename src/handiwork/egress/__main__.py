"""`python -m handiwork.egress --control N [--user UID --home DIR]`: one proxy process.

N is the inherited descriptor of its control socket. Started as root with `--user`, it becomes that
host id once everything is imported, with the directory `--home` at `process.HOME`; it ends when the
control socket does.
"""

import argparse
import asyncio
import signal
import socket
from datetime import UTC, datetime
from time import perf_counter, time_ns

import uvloop

from handiwork import process
from handiwork.egress.proxy.process import ProxyProcess
from handiwork.observe import log


def main(arguments: list[str] | None = None) -> None:
    """Serve until the control socket ends."""
    parser = argparse.ArgumentParser(prog="handiwork.egress", description=__doc__)
    parser.add_argument("--control", type=int, required=True, metavar="N")
    parser.add_argument("--user", type=int, metavar="UID")
    parser.add_argument("--home", default="", metavar="DIR")
    parser.add_argument("--log-level", choices=tuple(log.LEVELS), default="info")
    parser.add_argument("--log-format", choices=("json", "text"), default="json")
    options = parser.parse_args(arguments)
    log.set_up(level=options.log_level, format=options.log_format, process="egress")
    "x".encode("idna")  # loads the codec that the resolver needs, while files can still be read
    process.harden()
    if options.user is not None:
        process.become(options.user, options.home)
        process.harden()  # a change of id makes a process dumpable where the system says so
    process.raise_descriptors()
    control = socket.socket(fileno=options.control)
    control.set_inheritable(False)
    uvloop.run(_serve(control))


async def _serve(control: socket.socket) -> None:
    proxy = ProxyProcess(lambda: datetime.fromtimestamp(time_ns() / 1e9, UTC), perf_counter)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, proxy.stop)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # a terminal's Ctrl-C is for our parent
    await proxy.run(control)


if __name__ == "__main__":
    main()
