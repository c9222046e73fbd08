"""The zygote of Python: loads the standard library, closes the cage, and forks cells."""

import ctypes
import gc
import importlib
import os
import pkgutil
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

from .link import Link
from .rehearsal import rehearse
from .session import EXIT_NO_MEMORY, BashSession, Session

CELL_SOCKET = 3
BASH_DESCRIPTORS = 2
"""Those that its interpreter waits with: it is made before the cage is closed, and makes none after."""
BASH_THREADS = 8
"""It parses in threads what it evaluates, one at a time; one lives on for some seconds."""
NOT_LOADED = frozenset(
    (
        *("antigravity", "this", "__main__"),  # do something when they are imported
        *("idlelib", "turtle", "turtledemo", "tkinter", "lib2to3", "ensurepip", "venv", "test"),
        *("curses", "readline", "rlcompleter", "pty", "tty", "nis", "crypt", "spwd", "ossaudiodev"),
        *("multiprocessing", "msilib", "pydoc_data", "distutils", "_pyrepl", "_ios_support"),
    )
)
"""Of no use in a cell: nobody looks at a window or a terminal of it, and it starts no process."""
NOT_HELD = frozenset(("test", "tests", "__main__", "idle_test"))
HOOK = ctypes.PYFUNCTYPE(None)


def standard_modules() -> Iterator[str]:
    """Yield the names of what is loaded; what a package holds after it, once that is imported."""
    for name in sorted(sys.stdlib_module_names - NOT_LOADED):
        yield name
        yield from _held_by(name)


def _held_by(package: str) -> Iterator[str]:
    places = getattr(sys.modules.get(package), "__path__", ())
    for inner in pkgutil.iter_modules(places, f"{package}."):
        if not NOT_HELD & set(inner.name.split(".")):
            yield inner.name
            yield from _held_by(inner.name)


def load() -> None:
    """Import all of it that this Python has; what it lacks on this system, cells lack."""
    for name in standard_modules():
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001, S112 -- some are of other systems, or need what is not installed
            continue


def data_bytes() -> int:
    """Return how much this process has that counts towards RLIMIT_DATA."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    raise OSError("/proc/self/status does not say VmData")


def main(arguments: list[str]) -> None:
    """Be the zygote; never returns."""
    parser = ArgumentParser(prog="python_cell")
    parser.add_argument("program", type=Path)
    parser.add_argument("role", choices=["zygote"])
    parser.add_argument("--root", required=True)
    parser.add_argument("--id", type=int, required=True)
    parser.add_argument("--memory-mib", type=int, required=True)
    parser.add_argument("--data-mib", type=int, required=True)
    parser.add_argument("--bash-packages", default="")
    asked = parser.parse_args(arguments)
    session = _bash_session(asked.bash_packages) if asked.bash_packages else _python_session()
    after_fork = ctypes.pythonapi.PyOS_AfterFork_Child

    def born() -> None:
        after_fork()
        session.born()

    def serve() -> None:
        try:
            session.serve()
        except MemoryError:
            pass
        finally:
            os._exit(EXIT_NO_MEMORY)

    library = ctypes.PyDLL(str(asked.program))
    hooks = HOOK(born), HOOK(serve)
    gc.collect()
    gc.freeze()
    limit = data_bytes() + (asked.memory_mib << 20)
    root = asked.root.encode()
    more = (BASH_DESCRIPTORS, BASH_THREADS) if asked.bash_packages else (0, 0)
    numbers = ctypes.c_uint32(asked.id), ctypes.c_uint64(limit), *map(ctypes.c_uint32, more)
    library.zygote_run(root, *numbers, *hooks)


def _python_session() -> Session:
    load()
    rehearse()
    return Session(Link(CELL_SOCKET))


def _bash_session(packages: str) -> Session:
    """Return one with the interpreter that lies in a directory of packages, and nothing else of these."""
    sys.path.append(packages)
    bash = importlib.import_module(".bash", __package__)
    sys.path.remove(packages)
    bash.Bash()  # what a first one loads, all cells have
    return BashSession(Link(CELL_SOCKET), bash.Bash)
