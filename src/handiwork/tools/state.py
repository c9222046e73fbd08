"""What the tools of a session have in its sandbox from one call, and one turn, to the next."""

import contextlib

from handiwork.model.errors import HandiworkError
from handiwork.sandboxes.protocol import Sandbox
from handiwork.tools.jobs import Jobs
from handiwork.tools.shell_process import Shell
from handiwork.tools.spool import Spool

MAX_SHELLS = 32
"""Of one sandbox; of a thread that is not heard of for long the shell goes, as by a restart."""


class ToolState:
    """The shells of a session's threads and its background jobs: they end with their sandbox."""

    def __init__(self) -> None:
        self._shells: dict[str, Shell] = {}
        self._jobs: Jobs | None = None

    @property
    def waiting(self) -> int:
        """How many shells stand and run nothing; each is a call of its sandbox all the same."""
        return sum(shell.waits for shell in self._shells.values())

    async def shell(self, thread_id: str, sandbox: Sandbox) -> Shell:
        """Return a thread's shell; a new one where the former was another sandbox's."""
        shell = self._shells.pop(thread_id, None)
        if shell is None or shell.sandbox is not sandbox:
            shell = Shell(sandbox)
        self._shells[thread_id] = shell
        for idle in [one for one in self._shells.values() if not one.runs][:-MAX_SHELLS]:
            await self._end(idle)
        return shell

    async def _end(self, shell: Shell) -> None:
        for thread_id in [name for name, one in self._shells.items() if one is shell]:
            del self._shells[thread_id]
        with contextlib.suppress(HandiworkError):  # it is another sandbox's, and ended with that
            await shell.kill()

    def jobs(self, sandbox: Sandbox, *, spool_bytes: int, limit: int) -> Jobs:
        """Return the background jobs in this sandbox; those of another one ended with it."""
        if self._jobs is None or self._jobs.spool.sandbox is not sandbox:
            self._jobs = Jobs(Spool(sandbox, spool_bytes), limit)
        return self._jobs
