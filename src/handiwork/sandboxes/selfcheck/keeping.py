"""Checks of what is kept of a sandbox elsewhere, and made again: as a snapshot and a rollback do."""

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

from handiwork.model.errors import ConflictError, NotFoundError, SandboxUnavailableError
from handiwork.model.sandbox import ExecRequest, SandboxSpec
from handiwork.sandboxes.protocol import Sandbox
from handiwork.sandboxes.selfcheck.table import Bench, Lacks, Refuted, check, expect, hold
from handiwork.sandboxes.snapshots.capture import Wanted
from handiwork.sandboxes.snapshots.generations import Generations
from handiwork.sandboxes.snapshots.manifest import Manifest
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.protocol import Entries, KeepsFiles
from handiwork.sandboxes.snapshots.sealing import KEY_BYTES, Keys
from handiwork.sandboxes.snapshots.stoppable import in_thread

TENANT = "check"
MAKES = """
cd /workspace && head -c 300000 /dev/urandom > large && echo one > a && ln a b && ln -s a c
mkdir d && echo in > d/e && chmod 0 d/e && chmod 4751 a && rm /etc/group
truncate -s 5000000 sparse && echo far >> sparse && touch -d @1234567890.5 d
"""
TELLS = """
cd /workspace && stat -c '%n %F %a %u:%g %h %s %y' a b c d d/e sparse; readlink c; cat a
sha256sum < large; sha256sum < sparse; test -e /etc/group || echo gone; ls
"""
WRITES = """
cd /workspace; while :; do echo x >> first; echo x >> second; done >/dev/null 2>&1 &
while ! test -s /workspace/second; do sleep 0.05; done
"""
GOES_ON = """
for turn in $(seq 600); do
    test $(wc -c < /workspace/second) -gt {} && echo on && break
    sleep 0.05
done
"""
SECONDS = 60.0
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
"""Nothing is older, so that no file is taken for the same by its times: a check reads them all."""


class _Memory:
    """Implements `store.blobs.Blobs` for the time of a check."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def put(self, key: str, data: bytes) -> None:
        self._kept[key] = data

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self._kept.setdefault(key, data) is data

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        if key not in self._kept:
            raise NotFoundError(f"there is no blob {key}")
        return self._kept[key][:limit_bytes]

    def list(self, prefix: str) -> Iterator[str]:
        yield from [key for key in self._kept if key.startswith(f"{prefix}/")]

    def delete(self, key: str) -> None:
        self._kept.pop(key, None)


class _Keeper:
    """Takes and makes the files of one sandbox."""

    def __init__(self, bench: Bench, spec: SandboxSpec) -> None:
        if not isinstance(bench.driver, KeepsFiles):
            raise Lacks("what a sandbox of this tier writes is on this host alone")
        self._files = bench.driver
        self._spec = spec
        keys = Keys(os.urandom(KEY_BYTES))
        self._generations = Generations(_Memory(), keys, TENANT, lambda: LONG_AGO, os.urandom)

    async def take(self) -> Manifest:
        """Take the next generation."""
        number, former = self._generations.newest(self._spec.id)
        async with self._files.still(self._spec.id) as tree:
            origin = self._files.origin(self._spec.id)
            wanted = Wanted(
                tenant=TENANT,
                sandbox_id=self._spec.id,
                number=number,
                reason="request",
                image=origin.image,
                tree=origin.tree,
                files=tree,
                ids=origin.ids,
            )
            stop, take = threading.Event(), self._generations.take
            return await in_thread(None, stop, lambda: take(wanted, former, stop))

    async def make(self, manifest: Manifest) -> None:
        """Put a generation in the place of the sandbox's files."""

        async def made(place: int, ids: Range) -> Entries:
            stop, make = threading.Event(), self._generations.make
            return await in_thread(None, stop, lambda: make(manifest, ids, place, "upper", stop))

        limits = self._spec.limits
        await self._files.remake(self._spec.id, manifest.head.image, limits.disk_mib, made)

    async def fail(self, manifest: Manifest) -> None:
        """Try to, and fail when nearly all is made."""

        async def made(place: int, _ids: Range) -> Entries:
            os.mkdir("upper", dir_fd=place)
            raise SandboxUnavailableError("the check's own")

        limits = self._spec.limits
        try:
            await self._files.remake(self._spec.id, manifest.head.image, limits.disk_mib, made)
        except SandboxUnavailableError:
            return
        raise Refuted("what could not be made was put in place")


async def _told(box: Sandbox, script: str) -> bytes:
    request = ExecRequest(argv=("sh", "-c", script), cwd="/", timeout_seconds=SECONDS)
    return (await box.exec(request)).stdout


@check("shell")
async def _files_are_made_again_as_they_were(bench: Bench) -> None:
    spec = bench.spec()
    keeper = _Keeper(bench, spec)
    await _told(await bench.driver.create(spec), MAKES)
    await bench.driver.sleep(spec.id)
    # What a tier itself forgets over a sleep is its own affair.
    box = await bench.driver.restore(spec)
    before = await _told(box, TELLS)
    hold(b"gone\na\nb\nc\n" in before, f"the tree was not made: {before!r}")
    first = await keeper.take()
    await _told(box, "cd /workspace && rm -r large d && echo two > a && echo new > /etc/group")
    second = await keeper.take()
    hold(second.head.new_bytes < first.head.new_bytes / 3, "a second one kept it all again")
    try:
        await keeper.make(first)
    except ConflictError:
        await bench.driver.sleep(spec.id)
    else:
        raise Refuted("the files of a running sandbox were replaced")
    await keeper.fail(first)
    await keeper.make(first)
    expect(await _told(await bench.driver.restore(spec), TELLS), before, "files made again")
    await bench.driver.sleep(spec.id)
    await keeper.make(second)
    woken = await bench.driver.restore(spec)
    expect(
        await _told(woken, "cat /workspace/a; ls /workspace"), b"two\na\nb\nc\nsparse\n", "files"
    )


@check("shell")
async def _what_runs_is_taken_at_one_moment_and_goes_on(bench: Bench) -> None:
    spec = bench.spec()
    keeper = _Keeper(bench, spec)
    box = await bench.driver.create(spec)
    await _told(box, WRITES)
    taken = await keeper.take()
    sizes = {entry.name: entry.size for entry in taken.body.entries}
    behind = sizes[b"first"] - sizes[b"second"]
    hold(behind in (0, 2), f"two files written in turn are {behind} bytes apart")
    counted = (await box.files.stat("/workspace/second")).size
    expect(await _told(box, GOES_ON.format(counted)), b"on\n", "what it writes afterwards")
    await bench.driver.sleep(spec.id)
    again = await keeper.take()
    found = {entry.name: entry.size for entry in again.body.entries}
    hold(found[b"second"] > sizes[b"second"], "one that sleeps was not taken as it is")
