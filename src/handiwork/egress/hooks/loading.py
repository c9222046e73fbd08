"""Hooks out of files: each of its own, taken up when it changes, kept as it was when it breaks."""

import hashlib
import inspect
import os
import traceback
import types
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handiwork.model.hook import MAX_HOOKS, HookInfo, Stage, is_hook_name
from handiwork.observe import log

MAX_SOURCE_BYTES = 1 << 20
_ARGUMENTS: dict[Stage, int] = {"request": 2, "response": 3}
_Stamp = tuple[int, int, int]


class Broken(Exception):
    """A file is not a hook; the text says why."""


@dataclass(frozen=True)
class Hook:
    """A hook in force."""

    name: str
    digest: str
    stages: dict[Stage, Callable[..., Any]]


class Shelf:
    """The hooks of a directory.

    `kept` is a directory for what last worked of each, so that a broken file does no harm over a
    restart. `limited` bounds the time of loading one: a file that outlasts it ends the process, and
    is found out at the next start by the mark that it left.
    """

    def __init__(
        self, directory: Path, kept: Path, limited: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._directory = directory
        self._kept = kept
        self._limited = limited
        self._stamps: dict[str, _Stamp] = {}
        self._errors: dict[str, str] = {}
        self._hooks: dict[str, Hook] = {}
        self._log = log.get("hooks")
        self._kept.mkdir(mode=0o700, exist_ok=True)

    def get(self, name: str) -> Hook | None:
        """Return a hook that works."""
        return self._hooks.get(name)

    def catalog(self) -> tuple[HookInfo, ...]:
        """Return what is in force and what is wrong."""
        return tuple(
            HookInfo(
                name=name,
                stages=tuple(hook.stages) if hook else (),
                digest=hook.digest[:12] if hook else "",
                error=self._errors.get(name, ""),
            )
            for name in sorted({*self._hooks, *self._errors})
            for hook in [self._hooks.get(name)]
        )

    def refresh(self) -> bool:
        """Take up what changed in the directory; say whether anything did."""
        found = self._found()
        changed = {name for name, stamp in found.items() if self._stamps.get(name) != stamp}
        gone = self._stamps.keys() - found.keys()
        self._stamps = found
        for name in gone:
            self._hooks.pop(name, None)
            self._errors.pop(name, None)
            self._log.info("hook removed", hook=name)
        for name in sorted(changed):
            self._take_up(name)
        return bool(changed or gone)

    def _found(self) -> dict[str, _Stamp]:
        try:
            with os.scandir(self._directory) as entries:
                files = sorted(
                    (entry.name[:-3], entry.stat())
                    for entry in entries
                    if entry.name.endswith(".py") and not entry.name.startswith(".")
                )
        except OSError as error:
            self._log.error("hooks cannot be listed", reason=error.strerror)
            return self._stamps
        if len(files) > MAX_HOOKS:
            self._log.error("too many hooks", most=MAX_HOOKS)
        return {name: (at.st_mtime_ns, at.st_size, at.st_ino) for name, at in files[:MAX_HOOKS]}

    def _take_up(self, name: str) -> None:
        try:
            source = self._read(name)
            self._hooks[name] = self._load(name, source)
        except Broken as broken:
            self._errors[name] = str(broken)
            if name not in self._hooks:
                self._restore(name)
            self._log.error("hook broken", hook=name, reason=str(broken), kept=name in self._hooks)
            return
        self._errors.pop(name, None)
        self._write(self._kept / f"{name}.py", source)
        self._log.info("hook loaded", hook=name, digest=self._hooks[name].digest[:12])

    def _read(self, name: str) -> bytes:
        if not is_hook_name(name):
            raise Broken("name the file with a-z, 0-9 and '_', a letter first")
        try:
            with (self._directory / f"{name}.py").open("rb") as file:
                source = file.read(MAX_SOURCE_BYTES + 1)
        except OSError as error:
            raise Broken(f"it cannot be read: {error.strerror}") from None
        if len(source) > MAX_SOURCE_BYTES:
            raise Broken(f"it is over {MAX_SOURCE_BYTES} bytes")
        return source

    def _restore(self, name: str) -> None:
        """Put in force what last worked before this process began, where it is known."""
        try:
            self._hooks[name] = self._load(name, (self._kept / f"{name}.py").read_bytes())
        except (OSError, Broken):
            self._log.warning("no version of a hook works", hook=name)

    def _load(self, name: str, source: bytes) -> Hook:
        digest = hashlib.sha256(source).hexdigest()
        mark = self._kept / f"{name}.loading"
        if mark.exists() and mark.read_text() == digest:
            raise Broken("loading it ended or blocked the process")
        self._write(mark, digest.encode())
        module = types.ModuleType(f"handiwork_hook_{name}")
        module.__file__ = str(self._directory / f"{name}.py")
        try:
            with self._limited():
                _run(name, source, module)
        finally:
            mark.unlink(missing_ok=True)
        return Hook(name, digest, _stages(module))

    def _write(self, path: Path, content: bytes) -> None:
        draft = path.with_name(f".{path.name}.new")
        draft.write_bytes(content)
        draft.rename(path)


def _run(name: str, source: bytes, module: types.ModuleType) -> None:
    place = f"{name}.py"
    try:
        code = compile(source, place, "exec", dont_inherit=True)
        exec(code, module.__dict__)  # noqa: S102  an operator's file is run: that is what it is for
    except SyntaxError as error:
        raise Broken(f"line {error.lineno}: {error.msg}") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001  an operator's code may raise anything
        raise Broken(told(error, place)) from None


def told(error: BaseException, place: str) -> str:
    """Return the kind of an error and its line in the file; its text could hold a guest's bytes."""
    lines = [
        one.lineno for one in traceback.extract_tb(error.__traceback__) if one.filename == place
    ]
    at = f" at line {lines[-1]} of {place}" if lines else ""
    return f"{type(error).__name__}{at}"


def _stages(module: types.ModuleType) -> dict[Stage, Callable[..., Any]]:
    found: dict[Stage, Callable[..., Any]] = {}
    for stage, count in _ARGUMENTS.items():
        function = getattr(module, f"on_{stage}", None)
        if function is None:
            continue
        if not inspect.iscoroutinefunction(function):
            raise Broken(f"on_{stage} is not an `async def`")
        try:
            inspect.signature(function).bind(*range(count))
        except TypeError:
            raise Broken(f"on_{stage} must take {count} arguments") from None
        found[stage] = function
    if not found:
        raise Broken("it has neither on_request nor on_response")
    return found
