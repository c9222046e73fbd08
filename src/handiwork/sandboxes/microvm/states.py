"""What a sandbox of this tier leaves on the host: `<id>/` with `meta.json`, `disk` and, of a machine
that runs or sleeps, `memory` and `devices`.

The disk is state: it survives every crash. Memory belongs to it only while `devices` is there, which
is written last when a machine falls asleep and taken away before it runs again: memory that is older
than the disk is never woken.
"""

import contextlib
import itertools
import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from handiwork.model.errors import (
    ConfigError,
    ConflictError,
    NotFoundError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.model.ids import is_id
from handiwork.sandboxes.trees import exchange, flush_one, remove_tree

_GONE = re.compile(r"\.(gone|pool|fork|made)-.+")
DISK, MEMORY, DEVICES, META = "disk", "memory", "devices", "meta.json"
IDS = 8192


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a state. `owner` is the host id of its machine, 0: ours (rootless).

    `sleeps_as` names all that a machine's memory depends on besides the disk, the boot of this host
    too; "" when it is none. `booted` is when it was last booted on a disk that was there before.
    """

    id: str
    owner: int
    image: str
    created: datetime
    sleeps_as: str = ""
    booted: datetime | None = None


class Staged(msgspec.Struct, frozen=True):
    """A state that is being made beside the others; `settle` makes it a sandbox's."""

    path: Path
    meta: Meta


class States:
    """The states below one directory and the ids of their machines. Every call blocks, briefly."""

    def __init__(self, directory: Path, *, first_id: int) -> None:
        self._directory = directory
        self._first_id = first_id
        self._owners: dict[str, int] = {}
        self._numbers = itertools.count()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in directory.iterdir():
            if _GONE.fullmatch(entry.name):
                remove_tree(entry)  # what a crash kept from being deleted, or made
        for name in self.ids():
            with contextlib.suppress(OSError):
                self._owners[name] = (self.path(name) / DISK).lstat().st_uid

    def path(self, sandbox_id: str) -> Path:
        """Return the directory of a state, there or not."""
        if not is_id(sandbox_id):
            raise ConfigError(f"sandbox id {sandbox_id[:80]!r} is not valid")
        return self._directory / sandbox_id

    def ids(self) -> list[str]:
        """Return the id of every state, sorted."""
        return sorted(entry.name for entry in self._directory.iterdir() if is_id(entry.name))

    def standing(self) -> dict[str, list[str]]:
        """Return the ids of the states that stand on each image.

        SandboxUnavailableError while that cannot be told of every one: then none may be removed.
        """
        found: dict[str, list[str]] = {}
        for name in self.ids():
            with contextlib.suppress(NotFoundError):  # destroyed meanwhile
                found.setdefault(self._seen(name).image, []).append(name)
        return found

    def make(self, sandbox_id: str, image: str, now: datetime) -> Meta:
        """Make an empty state with an id of its own; ConflictError when there is one."""
        path = self.path(sandbox_id)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError as error:
            raise _taken(sandbox_id) from error
        owner = self._next_owner()
        self._owners[sandbox_id] = owner
        return Meta(id=sandbox_id, owner=owner, image=image, created=now)

    def stage(self, what: Literal["pool", "fork", "made"], image: str, now: datetime) -> Staged:
        """Make an empty state beside, with an id of its own, that is nobody's until `name` and `settle`."""
        path = self._directory / f".{what}-{next(self._numbers)}"
        path.mkdir(mode=0o700)
        owner = self._owners[path.name] = self._next_owner()
        return Staged(path, Meta(id=path.name, owner=owner, image=image, created=now))

    def name(self, staged: Staged, sandbox_id: str, now: datetime) -> Staged:
        """Write down whose a staged state is to be; ConflictError as `make`."""
        self.refuse_taken(sandbox_id)
        meta = msgspec.structs.replace(staged.meta, id=sandbox_id, created=now)
        _write(staged.path, meta)
        return Staged(staged.path, meta)

    def install(self, staged: Staged, sandbox_id: str) -> Path | None:
        """Make a staged state the sandbox's own, in one step; it lasts when this returns. Blocks.

        Returns the state that it replaced, which is to be deleted. The sandbox must not run. OSError
        leaves all as it was.
        """
        named = Staged(staged.path, msgspec.structs.replace(staged.meta, id=sandbox_id))
        _write(named.path, named.meta)
        self.flush(named)
        target = self.path(sandbox_id)
        replaces = target.exists()
        move: Callable[[Path, Path], object] = exchange if replaces else Path.rename
        move(named.path, target)
        try:
            self.flush_names()
        except OSError:
            move(target, named.path)
            raise
        self._owners[sandbox_id] = self._owners.pop(named.path.name)
        return named.path if replaces else None

    def flush(self, named: Staged) -> None:
        """Have what was staged lie on the host's disk, however long that takes."""
        for path in (named.path / DISK, named.path / META, named.path):
            flush_one(path)

    def settle(self, named: Staged) -> None:
        """Make one that was staged the sandbox's own that it is named for, in one step."""
        named.path.rename(self.path(named.meta.id))
        self._owners[named.meta.id] = self._owners.pop(named.path.name)

    def flush_names(self) -> None:
        """Have it last which states there are."""
        flush_one(self._directory)

    def refuse_taken(self, sandbox_id: str) -> None:
        """Raise ConflictError where there is state of this id."""
        if self.path(sandbox_id).exists():
            raise _taken(sandbox_id)

    def has_disk(self, sandbox_id: str) -> bool:
        """Whether there is a disk of this id."""
        return (self.path(sandbox_id) / DISK).is_file()

    def abandon(self, staged: Staged) -> None:
        """Forget one that nobody wants; its directory remains to be deleted."""
        self._owners.pop(staged.path.name, None)

    def save(self, meta: Meta) -> None:
        """Write the meta file whole or not at all."""
        _write(self.path(meta.id), meta)

    def load(self, sandbox_id: str) -> Meta:
        """Return what is known of a state; NotFoundError when there is none."""
        meta = self._seen(sandbox_id)
        if bool(meta.owner) != bool(self._first_id):
            raise SandboxUnavailableError(
                f"sandbox {sandbox_id} was made by {'root' if meta.owner else 'an ordinary user'}:"
                " only they can wake it"
            )
        return meta

    def _seen(self, sandbox_id: str) -> Meta:
        path = self.path(sandbox_id)
        if not self.has_disk(sandbox_id):
            raise NotFoundError(f"sandbox {sandbox_id} has no state on this host")
        try:
            return msgspec.json.decode((path / META).read_bytes(), type=Meta)
        except (OSError, msgspec.DecodeError) as error:
            raise SandboxUnavailableError(
                f"sandbox {sandbox_id} has a disk, but {path / META} cannot be read: {error}"
            ) from None

    def forget(self, sandbox_id: str) -> Path | None:
        """Take a state out of the list at once; the directory that is returned is to be deleted."""
        path = self.path(sandbox_id)
        names = (f".gone-{sandbox_id}-{number}" for number in itertools.count())
        gone = next(place for name in names if not (place := self._directory / name).exists())
        self._owners.pop(sandbox_id, None)
        try:
            path.rename(gone)
        except FileNotFoundError:
            return None
        return gone

    def own(self, path: Path, meta: Meta) -> None:
        """Give a file of a state to its machine, for its eyes only."""
        path.chmod(0o600)
        if meta.owner:
            os.chown(path, meta.owner, meta.owner)

    def _next_owner(self) -> int:
        if not self._first_id:
            return 0
        taken = set(self._owners.values())
        for owner in range(self._first_id, self._first_id + IDS):
            if owner not in taken:
                return owner
        raise UnsupportedError(
            f"no id is free from sandbox.microvm.first_id = {self._first_id} on, {IDS} of them"
        )


def _write(state: Path, meta: Meta) -> None:
    """Whole or not at all, after a power cut too: without it a disk is nobody's."""
    beside = state / f".{META}"
    beside.write_bytes(msgspec.json.encode(meta))
    flush_one(beside)
    beside.rename(state / META)


def _taken(sandbox_id: str) -> ConflictError:
    return ConflictError(f"sandbox {sandbox_id} has state on this host: restore or destroy it")
