"""Modules of the workspace: their text comes from the host, while the cell stands still."""

import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import posixpath
import types
from collections.abc import Callable, Sequence
from typing import Any

Ask = Callable[[str, object], Any]
WORKSPACE = "/workspace"


class WorkspaceFinder(importlib.abc.MetaPathFinder):
    """Finds what no module of the standard library is; `places` are searched in order."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.places: tuple[str, ...] = (WORKSPACE,)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a module's spec; None where the workspace has no such file."""
        last = fullname.rpartition(".")[2]
        places = self.places if path is None else path
        wanted = [f"{place}/{last}{end}" for place in places for end in ("/__init__.py", ".py")]
        found = self._ask("workspace.find_module", {"paths": wanted})
        if found is None:
            return None
        is_package = found["path"].endswith("/__init__.py")
        loader = _Loader(found["path"], found["text"])
        spec = importlib.util.spec_from_loader(
            fullname, loader, origin=found["path"], is_package=is_package
        )
        if spec is not None and is_package:
            spec.submodule_search_locations = [posixpath.dirname(found["path"])]
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._text = text

    def exec_module(self, module: types.ModuleType) -> None:
        """Run it."""
        module.__file__ = self._path
        lines = self._text.splitlines(keepends=True)
        linecache.cache[self._path] = (len(self._text), None, lines, self._path)
        exec(compile(self._text, self._path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 -- a module
