"""What an isolate leaves on the host: `<id>/` with its workspace, one SQLite file. Every call blocks, briefly."""

import contextlib
import itertools
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from handiwork.model.errors import ConfigError, ConflictError, NotFoundError
from handiwork.model.ids import is_id
from handiwork.sandboxes.isolate.workspace import Quota, Workspace
from handiwork.sandboxes.trees import remove_tree

WORKSPACE = "workspace.db"
_BESIDE = re.compile(r"\.(made|gone)-\d+")


class States:
    """Those below one directory. One is there with all it has, or not at all."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count()
        self._spares: list[Path] = []
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in directory.iterdir():
            if _BESIDE.fullmatch(entry.name):
                remove_tree(entry)  # what a crash kept from being made, or deleted

    @cached_property
    def _empty(self) -> bytes:
        """An empty workspace: a copy of one is made in a tenth of the time, and nothing waits for a disk."""
        with self.staged() as beside:
            Workspace(beside / WORKSPACE).close()
            return (beside / WORKSPACE).read_bytes()

    def path(self, sandbox_id: str) -> Path:
        """Return the directory of one, there or not."""
        if not is_id(sandbox_id):
            raise ConfigError(f"sandbox id {sandbox_id[:80]!r} is not valid")
        return self._directory / sandbox_id

    def ids(self) -> list[str]:
        """Return the id of each, sorted."""
        return sorted(entry.name for entry in self._directory.iterdir() if is_id(entry.name))

    def keep_ready(self, count: int) -> None:
        """Have so many empty ones lie ready, of which `make` takes one in a tenth of the time.

        Fewer where there is no room for them: it is for `make` to tell whoever wants one.
        """
        while len(self._spares) > count:
            remove_tree(self._spares.pop())
        while len(self._spares) < count:
            try:
                self._spares.append(self._empty_one())
            except OSError:
                return

    def make(self, sandbox_id: str, source: Workspace | None = None) -> None:
        """Make one with an empty workspace, or a copy of another's; ConflictError when it is there."""
        target = self.path(sandbox_id)
        if target.exists():
            raise _taken(sandbox_id)
        if source is None and self._spares:
            self._spares.pop().rename(target)
            return
        with self.staged() as beside:
            if source is None:
                (beside / WORKSPACE).write_bytes(self._empty)
            else:
                source.copy_to(beside / WORKSPACE)
            try:
                beside.rename(target)
            except FileExistsError:
                raise _taken(sandbox_id) from None

    def open(self, sandbox_id: str, quota: Quota) -> Workspace:
        """Open one's workspace; NotFoundError when there is none."""
        return Workspace(self.workspace(sandbox_id), quota)

    def workspace(self, sandbox_id: str) -> Path:
        """Return where one's workspace lies; NotFoundError when there is none."""
        path = self.path(sandbox_id) / WORKSPACE
        if not path.is_file():
            raise NotFoundError(f"there is no state of sandbox {sandbox_id}")
        return path

    @contextlib.contextmanager
    def staged(self) -> Iterator[Path]:
        """Yield an empty directory to make something in, which is gone at the end."""
        beside = self._beside()
        try:
            yield beside
        finally:
            with contextlib.suppress(FileNotFoundError):
                remove_tree(beside)

    def _empty_one(self) -> Path:
        made = self._beside()
        try:
            (made / WORKSPACE).write_bytes(self._empty)
        except OSError:
            remove_tree(made)
            raise
        return made

    def _beside(self) -> Path:
        made = self._directory / f".made-{next(self._numbers)}"
        made.mkdir(mode=0o700)
        return made

    def remove(self, sandbox_id: str) -> None:
        """Delete one. No-op when it is not there."""
        beside = self._directory / f".gone-{next(self._numbers)}"
        with contextlib.suppress(FileNotFoundError):
            self.path(sandbox_id).rename(beside)
            remove_tree(beside)


def _taken(sandbox_id: str) -> ConflictError:
    return ConflictError(f"state of sandbox {sandbox_id} exists")
