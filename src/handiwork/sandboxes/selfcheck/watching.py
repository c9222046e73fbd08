"""Checks of watches: what changes is told, what is lost or left out is told too."""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from handiwork.model.errors import GuestError
from handiwork.model.sandbox import ExecRequest, FileChange
from handiwork.sandboxes.protocol import Watch
from handiwork.sandboxes.selfcheck.table import Bench, Refuted, check, expect, hold, refused

PATIENCE_SECONDS = 30.0


@check("shell")
async def _changes_of_files_are_told(bench: Bench) -> None:
    async with _watching(bench, "/workspace/told") as seen:
        await _do(
            bench,
            "/workspace/told",
            "open('a', 'w').write('x'); os.chmod('a', 0o600); os.rename('a', 'b')",
            "os.mkdir('c'); os.remove('b'); os.rmdir('c')",
        )
        await seen.until("removed c")
        for one in (
            "created a",
            "changed a",
            "moved_away a",
            "moved_here b",
            "created c",
            "removed b",
        ):
            hold(one in seen.found, f"{one!r} was not told, but {seen.found}")


@check("shell")
async def _directories_that_come_are_watched(bench: Bench) -> None:
    async with _watching(
        bench, "/workspace/tree", before="mkdir -p /workspace/tree/old/deep"
    ) as seen:
        await bench.shell(
            "cd /workspace/tree; echo x >old/deep/file; mkdir -p new/below; echo x >new/below/file"
        )
        await seen.until("created old/deep/file")
        await seen.until("created new/below/file")
        await _do(
            bench,
            "/workspace/tree",
            "os.rename('new', 'moved'); open('moved/below/more', 'w')",
            "os.remove('old/deep/file'); os.rmdir('old/deep'); os.rmdir('old')",
        )
        await seen.until("created moved/below/more")
        await seen.until("removed old")


@check("shell")
async def _what_is_watched_can_go(bench: Bench) -> None:
    async with _watching(bench, "/workspace/gone") as seen:
        await bench.shell("rm -r /workspace/gone")
        await seen.until_end()


@check("shell")
async def _what_cannot_be_watched_is_refused(bench: Bench) -> None:
    box = await bench.box()
    await box.files.write("/workspace/plain", b"x")
    await refused(box.files.watch("/workspace/none"), errno.ENOENT)
    await refused(box.files.watch("/workspace/plain"), errno.ENOTDIR)
    await refused(box.files.watch("/proc/self"), errno.EACCES, errno.ELOOP)


@check("shell")
async def _events_that_nobody_takes_overflow(bench: Bench) -> None:
    count = 60_000
    async with _watching(bench, "/tmp/many", reading=False) as seen:  # noqa: S108  a directory of the guest
        script = (
            "import os\nfor n in 'ab': open(n, 'w')\n"
            f"for n in range({count // 2}): os.chmod('a', 0o600); os.chmod('b', 0o600)\n"
            "os.rename('b', 'last')\n"
        )
        run = await (await bench.box()).exec(_python(script, "/tmp/many"))  # noqa: S108  a directory of the guest
        expect(run.exit_code, 0, "exit code")
        seen.read()
        await seen.until("overflow ", "moved_here last")
        # A kernel without a bound on what it keeps has told all of it.
        whole = "overflow " in seen.lines or len(seen.found) > count
        hold(whole, f"{len(seen.found)} events of {count} were told, and no loss")
    expect((await bench.shell("echo on")).stdout, b"on\n", "the sandbox afterwards")


async def _do(bench: Bench, where: str, *lines: str) -> None:
    script = "\n".join(("import os", *lines))
    done = await (await bench.box()).exec(_python(script, where))
    expect((done.exit_code, done.stderr), (0, b""), "how the changes went")


def _python(script: str, cwd: str) -> ExecRequest:
    return ExecRequest(argv=("python3", "-c", script), cwd=cwd, timeout_seconds=120)


class _Seen:
    """What a watch has told, as lines."""

    def __init__(self, watch: Watch, group: asyncio.TaskGroup) -> None:
        self.found: list[str] = []
        self.lines: set[str] = set()
        self._watch = watch
        self._group = group
        self._changed = asyncio.Event()
        self._ended = False

    def read(self) -> None:
        """Take events from now on."""
        self._group.create_task(self._read())

    async def _read(self) -> None:
        async for event in self._watch.events():
            hold(event.change is not FileChange.UNWATCHED, f"{event.path!r} is not watched")
            self.found.append(f"{event.change.value} {event.path}")
            self.lines.add(self.found[-1])
            self._changed.set()
        self._ended = True
        self._changed.set()

    async def until(self, *lines: str) -> None:
        """Wait until one of these lines was told."""
        wanted = set(lines)
        await self._wait(lambda: not wanted.isdisjoint(self.lines), lines[0])

    async def until_end(self) -> None:
        """Wait until there is nothing more to tell."""
        await self._wait(lambda: self._ended, "the end")

    async def _wait(self, done: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not done():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise Refuted(f"{what} was not told, but {self.found[-20:]}") from None


@asynccontextmanager
async def _watching(
    bench: Bench, path: str, *, before: str = "", reading: bool = True
) -> AsyncIterator[_Seen]:
    await bench.shell(f"mkdir -p {path}; {before or 'true'}")
    watch = await (await bench.box()).files.watch(path)
    try:
        async with asyncio.TaskGroup() as group:
            seen = _Seen(watch, group)
            if reading:
                seen.read()
            try:
                yield seen
            finally:
                watch.close()
    except* GuestError as ended:
        numbers = {one.errno for one in ended.exceptions if isinstance(one, GuestError)}
        expect(numbers, {errno.ECANCELED}, "how a watch that was closed ended")
