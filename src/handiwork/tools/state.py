"""What the tools of a session have in its sandbox from one call, and one turn, to the next."""

from handiwork.sandboxes.protocol import Sandbox
from handiwork.tools.jobs import Jobs
from handiwork.tools.shell_process import Shell
from handiwork.tools.spool import Spool


class ToolState:
    """The shells of a session's threads and its background jobs: they end with their sandbox."""

    def __init__(self) -> None:
        self._shells: dict[str, Shell] = {}
        self._jobs: Jobs | None = None

    def shell(self, thread_id: str, sandbox: Sandbox) -> Shell:
        """Return a thread's shell; a new one where the former was another sandbox's."""
        shell = self._shells.get(thread_id)
        if shell is None or shell.sandbox is not sandbox:
            shell = self._shells[thread_id] = Shell(sandbox)
        return shell

    def jobs(self, sandbox: Sandbox, *, spool_bytes: int, limit: int) -> Jobs:
        """Return the background jobs in this sandbox; those of another one ended with it."""
        if self._jobs is None or self._jobs.spool.sandbox is not sandbox:
            self._jobs = Jobs(Spool(sandbox, spool_bytes), limit)
        return self._jobs
