"""What a sandbox leaves on the host: `<id>/` with `meta.json`, `upper/`, `work/` and two mount points.

An upper directory is state: it survives every crash and is deleted only by `destroy`. What the meta
file of one without layers says can be told from the directory itself, so a lost one loses no files.
What layers a state stands on nothing else tells: such a file is always flushed, and one that cannot
be read is an error and never taken for a lost one.
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
    HandiworkError,
    NotFoundError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.model.ids import is_id
from handiwork.sandboxes.disk_files import is_free
from handiwork.sandboxes.marks import DISK, UNFLUSHED, Mark, why_lost
from handiwork.sandboxes.trees import exchange, flush_filesystem, flush_one, remove_tree

IDS = 65_536
LAST_BASE = 0xFFFFFFFF - IDS
_GONE = re.compile(r"\.(gone|staged|pool)-.+")


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a state; `id_base` 0: its files are ours (rootless).

    `on_disk`: its files are on a disk of its own, without which the state is lost. `disk_base`: the
    first id of those that own its files, where they are not `id_base` and those after it. `layers`:
    the names of what it shares with others, topmost first; its own disk is new, or there is none yet.
    `forked`: it was made of another, and has not started since.
    """

    id: str
    id_base: int
    image: str
    created: datetime
    on_disk: bool = False
    disk_base: int = 0
    layers: tuple[str, ...] = ()
    forked: bool = False

    @property
    def owner_base(self) -> int:
        """The first host id of those that own its files, wherever they lie."""
        return self.disk_base or self.id_base


ATTEMPT = "attempt_"
"""What the ids begin with of those that are made to prove a tier, and destroyed at once."""


class Staged(msgspec.Struct, frozen=True):
    """A state that is being made beside the others; `install` makes it the sandbox's."""

    path: Path
    meta: Meta


def disk_of(state: Path) -> Path:
    """Return where the disk of the state in a directory lies."""
    return state / DISK


class States:
    """The states below one directory, and the id ranges they hold. Every call blocks, briefly."""

    def __init__(self, directory: Path, *, ranged: bool, first_id: int) -> None:
        self._directory = directory
        self._ranged = ranged
        self._first_id = first_id
        self._bases: dict[str, int] = {}
        self._numbers = itertools.count()
        self._layers = directory.with_name("layers")
        self._becoming: set[str] = set()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        for name in self.ids():
            self._bases[name] = self._owner(self.path(name))
            self._take_up(name)
        self.sweep_layers()

    def _take_up(self, sandbox_id: str) -> None:
        """Finish what a crash interrupted; a state that cannot be read or flushed stays as it is."""
        with contextlib.suppress(OSError, HandiworkError):
            meta = self.seen(sandbox_id)
            if self._is_layer(meta):  # it came between the steps of `share` or `unshare`
                self.disk(sandbox_id).unlink()
        with contextlib.suppress(OSError):
            # Who ran when we were killed may write to it yet: then it is flushed later.
            if is_free(self.disk(sandbox_id)):
                self.flush(sandbox_id)

    def path(self, sandbox_id: str) -> Path:
        """Return the directory of a state, there or not."""
        if not is_id(sandbox_id):
            raise ConfigError(f"sandbox id {sandbox_id[:80]!r} is not valid")
        return self._directory / sandbox_id

    def disk(self, sandbox_id: str) -> Path:
        """Return where a state's disk lies; there is none where its files lie in `upper` itself."""
        return disk_of(self.path(sandbox_id))

    @property
    def layers(self) -> Path:
        """Where layers lie, as `NAME.img`."""
        return self._layers

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
                found.setdefault(self.seen(name).image, []).append(name)
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

    def stage(
        self,
        sandbox_id: str,
        image: str,
        now: datetime,
        *,
        on_disk: bool = False,
        forked: bool = False,
    ) -> Staged:
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
        meta = Meta(
            id=sandbox_id,
            id_base=base,
            image=image,
            created=now,
            on_disk=on_disk,
            forked=forked,
        )
        return Staged(path, meta)

    def install(self, staged: Staged) -> Path | None:
        """Make a staged state, whose `upper` is whole, the sandbox's own, in one step.

        Returns the state it replaced, which is to be deleted. The sandbox must not run.
        """
        target = self.path(staged.meta.id)
        (staged.path / "meta.json").write_bytes(msgspec.json.encode(staged.meta))
        self._flush(staged)
        replaces = target.exists()
        if replaces:
            exchange(staged.path, target)
        else:
            staged.path.rename(target)
        flush_one(self._directory)
        return staged.path if replaces else None

    def flush(self, sandbox_id: str) -> None:
        """Have the disk of a new state lie on the host's; until then it is whole in this boot alone.

        No-op when that was done, and for one of another boot, which stays lost. OSError: call it again.
        """
        with (
            contextlib.suppress(FileNotFoundError),
            contextlib.closing(Mark.of(self.path(sandbox_id))) as mark,
        ):
            mark.write_out()
            mark.clear()

    def is_flushed(self, sandbox_id: str) -> bool:
        """Whether there is nothing that `flush` would do."""
        return not (self.path(sandbox_id) / UNFLUSHED).exists()

    def _flush(self, staged: Staged) -> None:
        """Make a staged state durable: by its few files where it is one on disks, which takes no time."""
        mark = staged.path / UNFLUSHED
        if mark.exists():
            for path in (mark, staged.path / "meta.json", staged.path):
                flush_one(path)
            return
        if not (staged.meta.on_disk or staged.meta.layers):
            flush_filesystem(staged.path)
            return
        disk = disk_of(staged.path)
        for path in (*([disk] if disk.exists() else []), staged.path / "meta.json", staged.path):
            flush_one(path)

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

    def save(self, meta: Meta, *, durable: bool = False) -> None:
        """Write the meta file whole or not at all; `durable`: a power cut later does not undo it.

        It is in any case where a state has layers, which nothing but this file tells.
        """
        path = self.path(meta.id)
        beside = path / ".meta.json"
        with beside.open("wb") as file:
            file.write(msgspec.json.encode(meta))
            file.flush()
            if durable or meta.layers:
                os.fsync(file.fileno())
        beside.rename(path / "meta.json")

    def load(self, sandbox_id: str, current_image: str) -> Meta:
        """Return what is known of a state; NotFoundError when there is none.

        Where a crash left no meta file, the work directory's owner and `current_image` stand in.
        SandboxUnavailableError for a state of root's where we are not root, and the other way round,
        and for a meta file that cannot be read. Changes nothing.
        """
        path = self.path(sandbox_id)
        if not (path / "upper").is_dir():
            raise NotFoundError(f"sandbox {sandbox_id} has no state on this host")
        meta = self._meta(path, current_image)
        self._check_disks(meta)
        if bool(meta.id_base) != self._ranged:
            raise SandboxUnavailableError(
                f"sandbox {sandbox_id} has {'an' if meta.id_base else 'no'} id range of its own:"
                f" only {'root' if meta.id_base else 'an ordinary user'} can wake it"
            )
        return meta

    def _check_disks(self, meta: Meta) -> None:
        disk = self.disk(meta.id)
        if why := why_lost(self.path(meta.id)):
            raise NotFoundError(f"the files of sandbox {meta.id} are not whole: {why}")
        lost = [one for one in meta.layers if not self._layer(one).exists()]
        if lost or (meta.on_disk and not disk.exists()):
            what = f"the layer {lost[0]}" if lost else "the disk"
            raise NotFoundError(f"{what} of sandbox {meta.id} is gone from this host")
        if self._is_layer(meta):
            raise SandboxUnavailableError(
                f"the disk of sandbox {meta.id} is being shared, or that was interrupted: try again, and"
                " restart the control plane if that does not help"
            )

    def _is_layer(self, meta: Meta) -> bool:
        """Whether the disk of a state is its topmost layer too: who wrote to it would write to others'."""
        disk = self.disk(meta.id)
        with contextlib.suppress(FileNotFoundError):
            return bool(meta.layers) and disk.samefile(self._layer(meta.layers[0]))
        return False

    def _layer(self, name: str) -> Path:
        return self._layers / f"{name}.img"

    def share(self, meta: Meta) -> Meta:
        """Make the disk of a sandbox that does not run its topmost layer; return what is known of it now.

        A crash at any step leaves the disk with it, under one name or both. The disk is clean.
        """
        self._layers.mkdir(mode=0o700, exist_ok=True)
        names = (f"{meta.id}-{number}" for number in itertools.count())
        name = next(one for one in names if not self._layer(one).exists())
        disk = self.disk(meta.id)
        self._becoming.add(name)
        try:
            os.link(disk, self._layer(name))
            shared = msgspec.structs.replace(
                meta, layers=(name, *meta.layers), disk_base=meta.owner_base, on_disk=False
            )
            self.save(shared, durable=True)
        except BaseException:
            self._layer(name).unlink(missing_ok=True)
            raise
        finally:
            self._becoming.discard(name)
        disk.unlink()
        return shared

    def is_shared(self, meta: Meta) -> bool:
        """Whether somebody else stands on the topmost layer of a state; True while it cannot be told."""
        needed = self._needed_layers(but=meta.id)
        return needed is None or meta.layers[0] in needed

    def unshare(self, meta: Meta) -> bool:
        """Make the topmost layer of a state its own disk again; False where that is not possible.

        Possible where it wrote nothing since and nobody else stands on it. It must not run.
        """
        disk = self.disk(meta.id)
        if not meta.layers or disk.exists() or self.is_shared(meta):
            return False
        os.link(self._layer(meta.layers[0]), disk)
        try:
            own = msgspec.structs.replace(meta, layers=meta.layers[1:], on_disk=True)
            self.save(own, durable=True)
        except BaseException:
            disk.unlink(missing_ok=True)
            raise
        self.sweep_layers()
        return True

    def sweep_layers(self) -> None:
        """Delete the layers that no state stands on; none while it cannot be told of every one."""
        if not self._layers.exists():
            return
        found = {entry.stem: entry for entry in self._layers.iterdir()}
        # In this order: what becomes one between the two is in no meta file.
        becoming = frozenset(self._becoming)
        needed = self._needed_layers() if found else set()
        if needed is None:
            return
        for name in found.keys() - becoming - needed:
            found[name].unlink(missing_ok=True)

    def _needed_layers(self, *, but: str = "") -> set[str] | None:
        """Return the layers that states stand on; None while it cannot be told of every one.

        It cannot either where states came or went meanwhile: a new one may be a fork, whose source,
        which was not read yet, has left the layer.
        """
        needed: set[str] = set()
        try:
            before = self._places()
            for sandbox_id, _ in before:
                if sandbox_id != but:
                    needed.update(self._named_layers(sandbox_id))
            return needed if self._places() == before else None
        except (OSError, msgspec.DecodeError):
            return None

    def _places(self) -> list[tuple[str, int]]:
        """Return every id with the number of its directory, which one made anew does not share."""
        with os.scandir(self._directory) as found:
            return sorted((entry.name, entry.inode()) for entry in found if is_id(entry.name))

    def _named_layers(self, sandbox_id: str) -> tuple[str, ...]:
        try:
            content = (self.path(sandbox_id) / "meta.json").read_bytes()
        except FileNotFoundError:
            return ()  # it was just made, on nothing, or is gone
        return msgspec.json.decode(content, type=Meta).layers

    def seen(self, sandbox_id: str) -> Meta:
        """Return what is known of a state as it lies there, whole or not."""
        path = self.path(sandbox_id)
        if not path.is_dir():
            raise NotFoundError(f"sandbox {sandbox_id} has no state on this host")
        return self._meta(path, "")

    def lies_on_disks(self, sandbox_id: str) -> bool:
        """Whether a state's files are on a disk, its own or one that it shares."""
        path = self.path(sandbox_id)
        return disk_of(path).exists() or (path.exists() and bool(self.seen(sandbox_id).layers))

    def _meta(self, path: Path, current_image: str) -> Meta:
        file = path / "meta.json"
        try:
            content = file.read_bytes()
            if content.strip(b"\0"):
                return msgspec.json.decode(content, type=Meta)
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError) as error:
            raise SandboxUnavailableError(
                f"the meta file {file} of a sandbox cannot be read: {error}; restore it from a backup,"
                " or destroy the sandbox"
            ) from error
        # There is none, or a power cut came before its content: it was not flushed, so named no layers.
        try:
            changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        except FileNotFoundError:
            raise NotFoundError(f"sandbox {path.name} has no state on this host") from None
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
        """Finish the deletions that a crash interrupted: destroy had been asked for them, or would be."""
        for entry in self._directory.iterdir():
            if _GONE.fullmatch(entry.name) or entry.name.startswith(ATTEMPT):
                remove_tree(entry)
