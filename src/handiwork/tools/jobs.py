"""Background jobs: commands that go on while the session does, in processes of their own.

A job is no child of the persistent shell: it survives the shell's end, `restart` and interrupts, and
ends with the sandbox. Inside, a pipe leads what it writes into its file, up to the limit of the
spool; nothing of it passes through this process until somebody asks.
"""

import asyncio
import errno
import posixpath
import re
import secrets
from dataclasses import dataclass

from handiwork.model.errors import GuestError, HandiworkError, ToolFailedError
from handiwork.model.sandbox import OUT_OF_MEMORY, ExecRequest
from handiwork.sandboxes.protocol import Process
from handiwork.tools.excerpt import HEAD_CHARACTERS, TAIL_CHARACTERS, TEXT_LIMIT, plain, shortened
from handiwork.tools.spool import DIRECTORY, Spool

REMEMBERED = 64
START_SECONDS = 10.0
KILL_SECONDS = 5.0
_NAME = re.compile(r"job_[0-9a-f]{8}")
_KILL = 9

# `dd` passes on what it reads at once, unlike `head`, but counts reads; so it is started again until
# the file is full to a mebibyte or does not grow any more, which is the end of the output.
_SCRIPT = r"""
log=%(log)s limit=%(limit)d
mkdir -p -- "${log%%/*}" && : >"$log" || exit 125
keep() {
    local old=-1 size=0
    while ((size > old && limit - size >= 1 << 20)); do
        old=$size
        dd bs=65536 count=$(((limit - size) / 65536)) >>"$log" 2>/dev/null
        size=$(stat -c %%s -- "$log")
    done
    old=$(wc -c)
    ((old == 0)) || printf '\n[%%d bytes more were dropped]' "$old" >>"$log"
}
(exec </dev/null 2>&1; eval %(state)s 2>/dev/null; eval %(command)s) | keep
code=${PIPESTATUS[0]}
printf '\n[%(id)s ended with exit code %%d]\n' "$code" >>"$log"
exit "$code"
"""


@dataclass(slots=True)
class Job:
    """One job. `code` is None while it runs; `told`: the model knows its end."""

    id: str
    command: str
    path: str
    process: Process
    code: int | None = None
    out_of_memory: bool = False
    lost: str = ""
    told: bool = False

    @property
    def state(self) -> str:
        """Say how it stands."""
        if self.lost:
            return f"ended with its sandbox: {self.lost}"
        why = f" ({OUT_OF_MEMORY})" if self.out_of_memory else ""
        return "running" if self.code is None else f"ended with exit code {self.code}{why}"

    @property
    def running(self) -> bool:
        """Say whether it runs, as far as it was looked at."""
        return self.code is None and not self.lost

    def handle(self) -> str:
        """Return what the model needs to find it again."""
        return (
            f"job {self.id}, pid {self.process.pid}: its output grows in {self.path};"
            f" it ends with the sandbox, or by: kill -- -{self.process.pid}"
        )


class Jobs:
    """The background jobs of one session in one sandbox; at most `limit` run at once."""

    def __init__(self, spool: Spool, limit: int) -> None:
        self.spool = spool
        self._limit = limit
        self._jobs: dict[str, Job] = {}

    async def start(self, command: str, state: bytes = b"") -> Job:
        """Start a command in a shell of its own that first takes on a state, see `Shell.state`."""
        running = [job for job in await self.all() if job.running]
        if len(running) >= self._limit:
            raise ToolFailedError(
                f"{len(running)} background jobs are running, the limit here; end one first:"
                f" {', '.join(job.id for job in running)}"
            )
        job_id = f"job_{secrets.token_hex(4)}"
        path = self.spool.path(f"{job_id}.log")
        script = _SCRIPT % {
            "id": job_id,
            "log": _quoted(path),
            "limit": self.spool.limit_bytes,
            "state": _quoted(state.decode("utf-8", "surrogateescape")),
            "command": _quoted(command),
        }
        name = posixpath.basename(path)
        # First of all: the job itself makes the file, and others tidy while it starts.
        self.spool.pinned.add(name)
        try:
            await self.spool.tidy()
            process = await self._run(script.encode("utf-8", "surrogateescape"))
        except BaseException as error:
            self.spool.pinned.discard(name)
            if not isinstance(error, GuestError):
                raise
            raise ToolFailedError(f"the background job could not be started: {error}") from None
        job = self._jobs[job_id] = Job(job_id, command, path, process)
        self._forget()
        return job

    async def all(self) -> list[Job]:
        """Return every job that is remembered, as it stands."""
        for job in self._jobs.values():
            await self.wait(job, 0)
        return list(self._jobs.values())

    async def find(self, job_id: str) -> Job:
        """Return one; ToolFailedError says what became of one that is not known any more."""
        job = self._jobs.get(job_id)
        if job is not None:
            await self.wait(job, 0)
            return job
        if _NAME.fullmatch(job_id) and f"{job_id}.log" in await self._logs():
            raise ToolFailedError(
                f"{job_id} ended: the sandbox slept or was replaced since;"
                f" what it wrote is in {DIRECTORY}/{job_id}.log"
            )
        raise ToolFailedError(f"there is no background job {job_id[:80]!r}")

    async def former(self) -> list[str]:
        """Return the ids of jobs that ended with a former life of the sandbox, or are forgotten."""
        names = [name.removesuffix(".log") for name in await self._logs()]
        return [name for name in names if _NAME.fullmatch(name) and name not in self._jobs]

    async def wait(self, job: Job, seconds: float) -> None:
        """Wait for its end, at most so long."""
        if not job.running:
            return
        try:
            async with asyncio.timeout(seconds):
                ended = await job.process.wait()
        except TimeoutError:
            return
        except HandiworkError as error:
            job.lost = str(error)
        else:
            job.code, job.out_of_memory = ended.exit_code, ended.out_of_memory
        self.spool.pinned.discard(posixpath.basename(job.path))

    async def kill(self, job: Job) -> None:
        """End it with all that it started."""
        await job.process.signal(_KILL)
        await self.wait(job, KILL_SECONDS)

    async def news(self) -> list[str]:
        """Return a line for each job that ended and was not told."""
        ended = [job for job in await self.all() if not job.running and not job.told]
        for job in ended:
            job.told = True
        return [f"[background job {job.id} {job.state}; output: {job.path}]" for job in ended]

    async def output(self, job: Job) -> str:
        """Return what it wrote: all, or head and tail."""
        files, end = self.spool.sandbox.files, f"\n[{job.id} ended with exit code {job.code}]\n"
        try:
            size = (await files.stat(job.path)).size
            if size <= 4 * TEXT_LIMIT:
                data = await files.read(job.path, limit_bytes=4 * TEXT_LIMIT)
                text = plain(data).removesuffix(end).rstrip("\n")
                if len(text) <= TEXT_LIMIT // 2:
                    return text
            head = await files.read(job.path, limit_bytes=4 * HEAD_CHARACTERS)
            at = max(0, size - 4 * TAIL_CHARACTERS)
            tail = await files.read(job.path, offset=at, limit_bytes=4 * TAIL_CHARACTERS)
        except GuestError as error:
            if job.running and error.errno == errno.ENOENT:  # it is about to make it
                return ""
            raise ToolFailedError(f"{job.path} cannot be read: {error}") from None
        note = f"{size} bytes in all, of which the beginning and the end are shown; see {job.path}"
        last = plain(tail).removesuffix(end).rstrip("\n")[-TAIL_CHARACTERS:]
        return shortened(plain(head)[:HEAD_CHARACTERS], last, note)

    async def _run(self, script: bytes) -> Process:
        request = ExecRequest(
            argv=("/bin/bash", "--noprofile", "--norc", "-c", 'eval "$(cat)"'),
            timeout_seconds=None,
            output_limit_bytes=1024,
            merge_stderr=True,
        )
        process = await self.spool.sandbox.start(request, stdin=True)
        try:
            async with asyncio.timeout(START_SECONDS):
                await process.write(script)
                await process.close_stdin()
        except TimeoutError:
            await process.signal(_KILL)
            raise ToolFailedError("the background job could not be started in time") from None
        except BaseException:
            await process.signal(_KILL)
            raise
        return process

    async def _logs(self) -> set[str]:
        try:
            found = await self.spool.sandbox.files.list(DIRECTORY)
        except GuestError as error:
            if error.errno == errno.ENOENT:
                return set()
            raise ToolFailedError(f"{DIRECTORY} cannot be read: {error}") from None
        return {one.name for one in found}

    def _forget(self) -> None:
        """Keep the newest; those that run stay."""
        ended = [job.id for job in self._jobs.values() if not job.running]
        for job_id in ended[: max(0, len(self._jobs) - REMEMBERED)]:
            del self._jobs[job_id]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
