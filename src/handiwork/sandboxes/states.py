"""What a sandbox leaves on the host: `<id>/` with `meta.json`, `upper/`, `work/` and two mount points.

An upper directory is state: it survives every crash and is deleted only by `discard`. What the meta
file says can be told from the directory itself, so a lost one loses no files.
"""

import contextlib
import itertools
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from handiwork.model.errors import (
    ConfigError,
    ConflictError,
    NotFoundError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.model.ids import is_id
from handiwork.sandboxes.trees import exchange, flush_filesystem, remove_tree

IDS = 65_536
LAST_BASE = 0xFFFFFFFF - IDS
_GONE = re.compile(r"\.(gone|staged|pool)-.+")


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a state; `id_base` 0: its files are ours (rootless).

    `on_disk`: its files are on a disk of its own, without which the state is lost.
    """

    id: str
    id_base: int
    image: str
    created: datetime
    on_disk: bool = False


class Staged(msgspec.Struct, frozen=True):
    """A state that is being made beside the others; `install` makes it the sandbox's."""

    path: Path
    meta: Meta


def disk_of(state: Path) -> Path:
    """Return where the disk of the state in a directory lies."""
    return state / "disk.img"


class States:
    """The states below one directory, and the id ranges they hold. Every call blocks, briefly."""

    def __init__(self, directory: Path, *, ranged: bool, first_id: int) -> None:
        self._directory = directory
        self._ranged = ranged
        self._first_id = first_id
        self._bases: dict[str, int] = {}
        self._numbers = itertools.count()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        for name in self.ids():
            self._bases[name] = self._owner(self.path(name))

    def path(self, sandbox_id: str) -> Path:
        """Return the directory of a state, there or not."""
        if not is_id(sandbox_id):
            raise ConfigError(f"sandbox id {sandbox_id[:80]!r} is not valid")
        return self._directory / sandbox_id

    def disk(self, sandbox_id: str) -> Path:
        """Return where a state's disk lies; there is none where its files lie in `upper` itself."""
        return disk_of(self.path(sandbox_id))

    def ids(self) -> list[str]:
        """Return the id of every state, sorted."""
        return sorted(entry.name for entry in self._directory.iterdir() if is_id(entry.name))

    def standing(self) -> dict[str, list[str]]:
        """Return the ids of the states that stand on each image."""
        found: dict[str, list[str]] = {}
        for name in self.ids():
            found.setdefault(self._meta(self.path(name), "").image, []).append(name)
        return found

    def make(self, sandbox_id: str, image: str, now: datetime) -> Meta:
        """Make an empty state with an id range of its own; ConflictError when there is one."""
        path = self.path(sandbox_id)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError as error:
            raise ConflictError(
                f"sandbox {sandbox_id} has state on this host: restore or destroy it"
            ) from error
        base = self._next_base()
        self._bases[sandbox_id] = base
        self._furnish(path, base)
        return Meta(id=sandbox_id, id_base=base, image=image, created=now)

    def stage(self, sandbox_id: str, image: str, now: datetime, *, on_disk: bool = False) -> Staged:
        """Begin a state beside, without an `upper`: it is nobody's until `install`.

        It has the id range of the state it may replace, or a new one.
        """
        self.path(sandbox_id)
        base = self._bases.get(sandbox_id)
        if base is None:
            base = self._bases[sandbox_id] = self._next_base()
        path = self._beside("staged", sandbox_id)
        path.mkdir(mode=0o700)
        self._furnish(path, base)
        (path / "upper").rmdir()
        meta = Meta(id=sandbox_id, id_base=base, image=image, created=now, on_disk=on_disk)
        return Staged(path, meta)

    def install(self, staged: Staged) -> Path | None:
        """Make a staged state, whose `upper` is whole, the sandbox's own, in one step.

        Returns the state it replaced, which is to be deleted. The sandbox must not run.
        """
        target = self.path(staged.meta.id)
        (staged.path / "meta.json").write_bytes(msgspec.json.encode(staged.meta))
        flush_filesystem(staged.path)
        replaces = target.exists()
        if replaces:
            exchange(staged.path, target)
        else:
            staged.path.rename(target)
        flush_filesystem(self._directory)
        return staged.path if replaces else None

    def drop(self, staged: Staged) -> None:
        """Take back what was staged and not installed; the directory remains to be deleted."""
        if not self.path(staged.meta.id).exists():
            self._bases.pop(staged.meta.id, None)

    def ahead(self, image: str, now: datetime) -> Staged:
        """Make an empty state beside, with an id range of its own, that is nobody's until `settle`."""
        path = self._directory / f".pool-{next(self._numbers)}"
        path.mkdir(mode=0o700)
        base = self._bases[path.name] = self._next_base()
        self._furnish(path, base)
        return Staged(path, Meta(id=path.name, id_base=base, image=image, created=now))

    def settle(self, ahead: Staged, sandbox_id: str, now: datetime) -> Meta:
        """Make a state that was made ahead a sandbox's own, in one step; ConflictError as `make`."""
        path = self.path(sandbox_id)
        if path.exists():
            raise ConflictError(
                f"sandbox {sandbox_id} has state on this host: restore or destroy it"
            )
        ahead.path.rename(path)
        self._bases[sandbox_id] = self._bases.pop(ahead.meta.id)
        return msgspec.structs.replace(ahead.meta, id=sandbox_id, created=now)

    def abandon(self, ahead: Staged) -> None:
        """Forget one that was made ahead and nobody wants; its directory remains to be deleted."""
        self._bases.pop(ahead.meta.id, None)

    def _furnish(self, path: Path, base: int) -> None:
        if base:
            path.chmod(0o711)  # the sandbox's ids look up names in it; its parent stops all others
        for name in ("upper", "work", "lower", "merged"):
            directory = path / name
            directory.mkdir()
            directory.chmod(0o755)
            if base and name in {"upper", "work"}:
                os.chown(directory, base, base)

    def save(self, meta: Meta) -> None:
        """Write the meta file whole or not at all."""
        path = self.path(meta.id)
        beside = path / ".meta.json"
        beside.write_bytes(msgspec.json.encode(meta))
        beside.rename(path / "meta.json")

    def load(self, sandbox_id: str, current_image: str) -> Meta:
        """Return what is known of a state; NotFoundError when there is none.

        Where a crash left no meta file, the work directory's owner and `current_image` stand in.
        SandboxUnavailableError for a state of root's where we are not root, and the other way round.
        """
        path = self.path(sandbox_id)
        if not (path / "upper").is_dir():
            raise NotFoundError(f"sandbox {sandbox_id} has no state on this host")
        meta = self._meta(path, current_image)
        if meta.on_disk and not self.disk(sandbox_id).exists():
            raise NotFoundError(f"the disk of sandbox {sandbox_id} is gone from this host")
        if bool(meta.id_base) != self._ranged:
            raise SandboxUnavailableError(
                f"sandbox {sandbox_id} has {'an' if meta.id_base else 'no'} id range of its own:"
                f" only {'root' if meta.id_base else 'an ordinary user'} can wake it"
            )
        return meta

    def _meta(self, path: Path, current_image: str) -> Meta:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode((path / "meta.json").read_bytes(), type=Meta)
        changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return Meta(id=path.name, id_base=self._owner(path), image=current_image, created=changed)

    def forget(self, sandbox_id: str) -> Path | None:
        """Take a state out of the list at once; the directory that is returned is to be deleted."""
        path = self.path(sandbox_id)
        gone = self._beside("gone", sandbox_id)
        self._bases.pop(sandbox_id, None)
        try:
            path.rename(gone)
        except FileNotFoundError:
            return None
        return gone

    def _beside(self, what: str, sandbox_id: str) -> Path:
        names = (f".{what}-{sandbox_id}-{number}" for number in itertools.count())
        return next(place for name in names if not (place := self._directory / name).exists())

    def _next_base(self) -> int:
        if not self._ranged:
            return 0
        taken = set(self._bases.values())
        for base in range(self._first_id, LAST_BASE + 1, IDS):
            if base not in taken:
                return base
        raise UnsupportedError(f"no id range is free above sandbox.first_id = {self._first_id}")

    def _owner(self, path: Path) -> int:
        """Tell the range by `work`: nobody inside reaches it, while `upper` is theirs to give away."""
        with contextlib.suppress(OSError):
            return (path / "work").lstat().st_uid if self._ranged else 0
        return 0

    def _sweep(self) -> None:
        """Finish the deletions that a crash interrupted: destroy had been asked for them."""
        for entry in self._directory.iterdir():
            if _GONE.fullmatch(entry.name):
                remove_tree(entry)
