"""Generations of a real tree: the first, one after a few changes, and back; tar with zstd and restic beside.

The tree lies where a sandbox's files do: as root on a disk of its own. All is in memory already, for
every arm alike. `tar` neither encrypts nor flushes, and each time keeps all; `restic` encrypts, and
keeps what is new.
"""

import asyncio
import itertools
import os
import shutil
import subprocess
import sysconfig
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from handiwork.sandboxes.disks import Disks, can_limit_disks
from handiwork.sandboxes.snapshots.capture import Wanted
from handiwork.sandboxes.snapshots.generations import Generations
from handiwork.sandboxes.snapshots.manifest import Manifest, manifest_key
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.sealing import Keys
from handiwork.sandboxes.snapshots.walk import DIRECTORY, Uppers
from handiwork.store.object_blobs import ObjectBlobs
from harness import ROOT, Bench, Skip

NAMES = (
    "first_mb_per_s",
    "second_new_bytes_percent",
    "second_ms",
    "restore_mb_per_s",
)
SOURCES = (
    Path(sysconfig.get_path("purelib")),
    Path("/usr/lib/node_modules"),
    ROOT / ".git",
    ROOT / "src",
    Path("/usr/lib/python3"),
    Path("/usr/share/nodejs"),
    Path("/usr/lib/git-core"),
    Path("/usr/include"),
)
"""Real files of the kinds that agents have; what is not there is passed over."""
TREE_BYTES, QUICK_BYTES = 320_000_000, 80_000_000
CHANGES = 200
NEW_FILES = 10
DISK_MIB = 3000
SETTLE_SECONDS = 2.5
"""A file that changed just before a walk is not recognised after it: no agent sleeps that soon."""


async def measure(bench: Bench) -> None:
    """Measure in a directory that is removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="handiwork-bench-", dir="/var/tmp"))
    places = Places(directory)
    try:
        tree = Tree(await places.new(), QUICK_BYTES if bench.quick else TREE_BYTES)
        await _measure(bench, tree, places, directory)
    finally:
        places.close()
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def _measure(bench: Bench, tree: "Tree", places: "Places", directory: Path) -> None:
    arms: dict[str, _Arm] = {"handiwork": _Ours(tree, directory)}
    for name, kind in (("tar", _Tar), ("restic", _Restic)):
        try:
            arms[name] = kind(tree, directory)
        except Skip as reason:
            bench.skipped |= {
                f"{each}_vs_{name}_ratio": str(reason) for each in ("first", "second", "restore")
            }
    bench.versions |= {name: arm.version() for name, arm in arms.items() if name != "handiwork"}
    facts = {"mb": round(tree.size / 1e6), "entries": tree.entries}
    first = await bench.alternate(
        {name: arm.first for name, arm in arms.items()}, count=bench.times(5, 2), warm_up=1
    )
    await _measure_second(bench, tree, arms)
    restored = await _restores(bench, arms, places)
    _record(bench, "first", first, tree, facts)
    _record(bench, "restore", restored, tree, facts)


def _record(
    bench: Bench, what: str, taken: dict[str, list[float]], tree: "Tree", facts: dict
) -> None:
    """Keep the speed of ours, and how many times as fast it is as each peer."""
    for name, seconds in taken.items():
        speeds = [tree.size / 1e6 / each for each in seconds]
        title = f"{what}_mb_per_s" if name == "handiwork" else f"{what}_{name}_mb_per_s"
        bench.record(title, speeds, "MB/s", **facts)
        if name != "handiwork":
            pairs = zip(taken["handiwork"], seconds, strict=True)
            bench.ratio(f"{what}_vs_{name}_ratio", [theirs / ours for ours, theirs in pairs])


async def _measure_second(bench: Bench, tree: "Tree", arms: dict[str, "_Arm"]) -> None:
    """After each round of changes every arm keeps the same tree once more."""
    await asyncio.sleep(SETTLE_SECONDS)
    ours = arms["handiwork"]
    assert isinstance(ours, _Ours)
    taken: dict[str, list[float]] = {name: [] for name in arms}
    percents = []
    for turn in range(1 + bench.times(5, 2)):
        tree.change(turn)
        for name in sorted(arms, reverse=bool(turn % 2)):
            before = time.perf_counter()
            arms[name].again()
            if turn:
                taken[name].append(time.perf_counter() - before)
        if turn:
            percents.append(100 * ours.new_bytes() / tree.size)
    bench.record("second_ms", taken["handiwork"], "ms", scale=1000, changes=CHANGES)
    bench.record("second_new_bytes_percent", percents, "%")
    for name in arms.keys() - {"handiwork"}:
        bench.record(f"second_{name}_ms", taken[name], "ms", scale=1000)
        pairs = zip(taken["handiwork"], taken[name], strict=True)
        bench.ratio(f"second_vs_{name}_ratio", [theirs / ours for ours, theirs in pairs])


async def _restores(
    bench: Bench, arms: dict[str, "_Arm"], places: "Places"
) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(1 + bench.times(5, 2)):
        for name in sorted(arms, reverse=bool(turn % 2)):
            place = await places.new()
            before = time.perf_counter()
            arms[name].restore(place.path)
            if turn:
                taken[name].append(time.perf_counter() - before)
            place.close()
    return taken


class Place:
    """A directory to write to, on a disk of its own where that can be had."""

    def __init__(self, path: Path, mount: int | None, image: Path | None) -> None:
        self.path = path
        self._mount = mount
        self._image = image

    def close(self) -> None:
        if self._mount is not None and self._image is not None:
            os.close(self._mount)
            self._mount = None
            self._image.unlink(missing_ok=True)


class Places:
    """Makes places below one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._disks = Disks(directory / "disks", ready=0) if can_limit_disks() else None
        self._count = itertools.count()
        self._made: list[Place] = []

    async def new(self) -> Place:
        name = f"place-{next(self._count)}"
        if self._disks is None:
            (self._directory / name).mkdir()
            place = Place(self._directory / name, None, None)
        else:
            image = self._directory / f"{name}.img"
            mount = await self._disks.take(image, DISK_MIB)
            os.set_inheritable(mount, True)
            place = Place(Path(f"/proc/{os.getpid()}/fd/{mount}"), mount, image)
        self._made.append(place)
        return place

    def close(self) -> None:
        for place in self._made:
            place.close()
        if self._disks is not None:
            self._disks.close()


class Tree:
    """Copies of real files, so many bytes of them."""

    def __init__(self, place: Place, size: int) -> None:
        self.root = place.path / "tree"
        self.root.mkdir()
        self.size = self.entries = 0
        for source in SOURCES:
            self._copy(source, size)
        if self.size < size:
            raise Skip(f"there are only {self.size} bytes of real files here, of {size}")
        self._texts = [path for path in sorted(self.root.rglob("*.py")) if path.is_file()]

    def _copy(self, source: Path, most: int) -> None:
        for directory, _, names in os.walk(source):
            if self.size >= most:
                return
            target = self.root / Path(directory).relative_to("/")
            target.mkdir(parents=True)
            self.entries += 1
            for name in names:
                shutil.copy2(Path(directory, name), target / name, follow_symlinks=False)
                self.size += os.lstat(target / name).st_size
                self.entries += 1

    def change(self, turn: int) -> None:
        """Add a line to many files, and a few new files."""
        for path in self._texts[: CHANGES - NEW_FILES]:
            with path.open("ab") as file:
                file.write(b"# %d\n" % turn)
        for number in range(NEW_FILES):
            (self.root / f"new-{turn}-{number}").write_bytes(os.urandom(4000))


class _Arm:
    """Keeps one tree: `first` times it from nothing, `again` keeps what changed, `restore` makes it."""

    def __init__(self, tree: Tree, directory: Path) -> None:
        self.tree = tree
        self.directory = directory

    async def first(self) -> float:
        raise NotImplementedError

    def again(self) -> None:
        """Keep the tree as it is now."""
        raise NotImplementedError

    def restore(self, target: Path) -> None:
        raise NotImplementedError

    def version(self) -> str:
        raise NotImplementedError


class _Ours(_Arm):
    """The engine as the rest of Handiwork calls it: the former manifest is read from the store."""

    def __init__(self, tree: Tree, directory: Path) -> None:
        super().__init__(tree, directory)
        self._ids = Range(0, os.geteuid())
        self._store = directory / "blobs"
        self._kept: Manifest | None = None

    def _generations(self) -> Generations:
        blobs = ObjectBlobs.in_directory(self._store)
        return Generations(blobs, Keys(b"k" * 32), "bench", lambda: datetime.now(UTC), os.urandom)

    def _take(self) -> Manifest:
        generations = self._generations()
        number, former = generations.newest("sbx_bench")
        directory = os.open(self.tree.root, DIRECTORY)
        try:
            wanted = self._wanted(number, Uppers((directory,)))
            return generations.take(wanted, former, threading.Event())
        finally:
            os.close(directory)

    def _wanted(self, number: int, files: Uppers) -> Wanted:
        return Wanted(
            tenant="bench",
            sandbox_id="sbx_bench",
            number=number,
            reason="request",
            image="none",
            tree="bench",
            files=files,
            ids=self._ids,
        )

    async def first(self) -> float:
        shutil.rmtree(self._store, ignore_errors=True)
        before = time.perf_counter()
        self._take()
        return time.perf_counter() - before

    def again(self) -> None:
        self._kept = self._take()

    def new_bytes(self) -> int:
        """Return what the last generation added to the store: packs, and all of its manifest."""
        assert self._kept is not None
        head = self._kept.head
        key = manifest_key(head.tenant, head.sandbox_id, head.number)
        return head.new_bytes + len(self._generations().blobs.get(key))

    def restore(self, target: Path) -> None:
        generations = self._generations()
        place = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            manifest = generations.load("sbx_bench", generations.numbers("sbx_bench")[0])
            generations.make(manifest, self._ids, place, "restored", threading.Event())
        finally:
            os.close(place)


class _Tar(_Arm):
    """`tar | zstd -1` with a thread for each processor."""

    def __init__(self, tree: Tree, directory: Path) -> None:
        super().__init__(tree, directory)
        _needs("tar"), _needs("zstd")
        self._file = directory / "tree.tar.zst"

    async def first(self) -> float:
        before = time.perf_counter()
        self.again()
        return time.perf_counter() - before

    def again(self) -> None:
        _piped(
            ["tar", "-C", str(self.tree.root), "-cf", "-", "."],
            ["zstd", "-1", "-T0", "-qfo", str(self._file)],
        )

    def restore(self, target: Path) -> None:
        _piped(["zstd", "-qdc", str(self._file)], ["tar", "-C", str(target), "-xf", "-"])

    def version(self) -> str:
        return _said(["tar", "--version"]).split()[3] + ", zstd " + _said(["zstd", "-qV"]).strip()


class _Restic(_Arm):
    """restic with its usual settings and a cache of its own."""

    def __init__(self, tree: Tree, directory: Path) -> None:
        super().__init__(tree, directory)
        self._program = _needs("restic")
        self._store = directory / "restic"

    def _run(self, *arguments: str) -> None:
        places = {
            "RESTIC_REPOSITORY": self._store,
            "RESTIC_CACHE_DIR": self.directory / "restic-cache",
        }
        env = {"RESTIC_PASSWORD": "bench", "HOME": "/", "PATH": os.defpath}
        env |= {name: str(path) for name, path in places.items()}
        subprocess.run([self._program, "-q", *arguments], env=env, check=True)

    async def first(self) -> float:
        shutil.rmtree(self._store, ignore_errors=True)
        self._run("init")
        before = time.perf_counter()
        self.again()
        return time.perf_counter() - before

    def again(self) -> None:
        self._run("backup", str(self.tree.root))

    def restore(self, target: Path) -> None:
        self._run("restore", "latest", "--target", str(target))

    def version(self) -> str:
        return _said([self._program, "version"]).split()[1]


def _needs(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise Skip(f"{program} is not installed: apt-get install {program}")
    return path


def _said(argv: list[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def _piped(first: list[str], second: list[str]) -> None:
    with subprocess.Popen(first, stdout=subprocess.PIPE) as source:
        sink = subprocess.run(second, stdin=source.stdout)
        if source.stdout is not None:
            source.stdout.close()
        if source.wait() or sink.returncode:
            raise RuntimeError(
                f"{first[0]} and {second[0]} ended with {source.returncode} and {sink.returncode}"
            )
