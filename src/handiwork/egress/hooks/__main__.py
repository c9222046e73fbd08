"""`python -m handiwork.egress.hooks [--user UID --home DIR]`: the hooks' process.

The first line of stdin is its settings (`HooksSettings`, JSON). One line `{"ready": true}` on stdout
says that it serves; what hooks print goes to stderr. It ends with 0 on SIGTERM or when stdin closes,
with 2 and one line on stderr when it cannot start. Started as root with `--user` it becomes that
host id, with the directory `--home` at `process.HOME`.
"""

import argparse
import asyncio
import os
import resource
import signal
import socket
import sys

import msgspec

from handiwork import process
from handiwork.egress.hooks.process import HooksProcess, HooksSettings
from handiwork.model.errors import ConfigError
from handiwork.observe import log

MAX_SETTINGS_BYTES = 65_536
MAX_FILES = 256
MAX_FILE_BYTES = 1 << 30
REFUSED = 2


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop; the exit status."""
    parser = argparse.ArgumentParser(prog="handiwork.egress.hooks", description=__doc__)
    parser.add_argument("--user", type=int, metavar="UID")
    parser.add_argument("--home", default="", metavar="DIR")
    parser.add_argument("--log-level", choices=tuple(log.LEVELS), default="info")
    parser.add_argument("--log-format", choices=("json", "text"), default="json")
    options = parser.parse_args(arguments)
    log.set_up(level=options.log_level, format=options.log_format, process="hooks")
    try:
        process.harden()
        if options.user is not None:
            process.become(options.user, options.home)
            process.harden()  # a change of id makes a process dumpable where the system says so
        settings = read_settings(0)
        _bound(settings.memory_mib)
        asyncio.run(_serve(settings))
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"hooks: {error}\n")
        return REFUSED
    return 0


def read_settings(descriptor: int) -> HooksSettings:
    """Read the first line; ConfigError when it is not one."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte or len(line) >= MAX_SETTINGS_BYTES:
            raise ConfigError("the settings are missing: one line of JSON on stdin")
        line += byte
    try:
        return msgspec.json.decode(bytes(line), type=HooksSettings)
    except msgspec.DecodeError as error:
        raise ConfigError(f"the settings are not valid: {error}") from None


def _bound(memory_mib: int) -> None:
    """Set the limits that hold for whatever a hook does."""
    for kind, most in (
        (resource.RLIMIT_AS, memory_mib << 20),
        (resource.RLIMIT_NOFILE, MAX_FILES),
        (resource.RLIMIT_FSIZE, MAX_FILE_BYTES),
    ):
        resource.setrlimit(kind, (most, most))


async def _serve(settings: HooksSettings) -> None:
    listener = socket.socket(fileno=settings.listen_fd)
    listener.set_inheritable(False)
    if settings.exit_fd is not None:
        os.set_inheritable(settings.exit_fd, False)
    serving = HooksProcess(settings)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, serving.stop)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # a terminal's Ctrl-C is for our parent
    loop.add_reader(0, _hear, serving)
    await serving.run(listener, _tell_ready)


def _hear(serving: HooksProcess) -> None:
    """Stop when our parent is gone; it says nothing after the settings."""
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)
        serving.stop()


def _tell_ready() -> None:
    """After this line what hooks print goes where the log goes: nobody reads the pipe further."""
    os.write(1, b'{"ready": true}\n')
    os.dup2(2, 1)


if __name__ == "__main__":
    sys.exit(main())
