"""A cell's life: run after run, each with an event loop of its own, all with the same globals."""

import contextlib
import io
import os
import posixpath
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .calls import Calls
from .link import Host
from .loop import Loop
from .modules import WORKSPACE, WorkspaceFinder
from .names import Namespace, fetcher
from .outbox import Outbox
from .program import prepared
from .values import to_json

EXIT_NO_MEMORY = 4


class Lines(io.TextIOBase):
    """What is printed, line by line, into the log."""

    def __init__(self, outbox: Outbox, level: str) -> None:
        self._outbox = outbox
        self._level = level
        self._begun = ""

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Take text, and say every line of it that is whole."""
        *whole, self._begun = (self._begun + text).split("\n")
        for line in whole:
            self._outbox.log(self._level, line)
        if len(self._begun) > 1 << 16:
            self.end()
        return len(text)

    def end(self) -> None:
        """Say the last line, though it is not whole."""
        if self._begun:
            self._outbox.log(self._level, self._begun)
            self._begun = ""


class Session:
    """The guest's side of one cell."""

    def __init__(self, link: Host) -> None:
        self._link = link
        self._outbox = Outbox(link)
        self.calls = Calls(link, self._outbox)
        """Of the host."""
        self._finder = WorkspaceFinder(self.calls.ask)
        self._printed = Lines(self._outbox, "log")
        self._complained = Lines(self._outbox, "error")
        call = self.calls.call
        self._namespace: dict[str, Any] = {
            "__name__": "__main__",
            "__builtins__": __builtins__,
            "codemode": Namespace("codemode", call),
            "workspace": Namespace("workspace", call),
            "fetch": fetcher(call),
        }

    def born(self) -> None:
        """Make what a cell must make before its cage is closed: nothing."""

    def serve(self) -> None:
        """Run what comes, for ever."""
        sys.meta_path[:] = [*sys.meta_path[:2], self._finder]  # built in and frozen ones
        sys.path[:] = [WORKSPACE]
        sys.argv[:] = ["code"]
        sys.stdin = io.StringIO()
        while True:
            message = self._link.receive(None)
            if message["t"] == "run":  # else an answer that came too late
                os.environ.update(message["env"])
                self.run(message["code"], message["name"])

    def run(self, code: str, name: str) -> None:
        """Run code to its end, and say how it ended."""
        sys.stdout, sys.stderr = self._printed, self._complained
        self._finder.places = tuple(dict.fromkeys((posixpath.dirname(name), WORKSPACE)))
        self.calls.begin()
        self._outbox.discard()
        loop = Loop(self._link, self._outbox, self.calls)
        try:
            value = to_json(loop.run_until_complete(self._value(code, name)))
        except BaseException as error:  # noqa: BLE001 -- also SystemExit: it is the run that ends
            self._tell(error, name)
        else:
            self._succeed(value, name)
        finally:
            with contextlib.suppress(RuntimeError):
                loop.close()

    async def _value(self, code: str, name: str) -> Any:
        """Return what code gives; here it is Python."""
        return await prepared(code, name)(self._namespace)

    def _succeed(self, value: str, name: str) -> None:
        self._end_lines()
        try:
            self._outbox.succeed(value)
        except ValueError as error:
            self._outbox.fail(error, name)

    def _tell(self, error: BaseException, name: str) -> None:
        self._end_lines()
        if isinstance(error, SystemExit) and error.code in (None, 0):
            self._outbox.succeed("null")
        else:
            self._outbox.fail(error, name)

    def _end_lines(self) -> None:
        for lines in (self._printed, self._complained):
            lines.end()


class BashSession(Session):
    """One whose code is for bash. `born` is to be called in the cell, before its cage is closed."""

    def __init__(self, link: Host, make: Callable[[], "Shell"]) -> None:
        super().__init__(link)
        self._make = make
        self._shell: Shell | None = None

    def born(self) -> None:
        """Make the shell."""
        self._shell = self._make()

    async def _value(self, code: str, name: str) -> Any:
        if self._shell is None:
            raise RuntimeError("there is no shell yet")
        return self._shell.run(code, os.environ, self.calls.ask)


class Shell(Protocol):
    """What runs scripts."""

    def run(self, code: str, env: Mapping[str, str], ask: Callable[[str, object], Any]) -> Any:
        """Run one to its end; what it gives can be JSON."""
