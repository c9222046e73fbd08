"""bash of a cell: an interpreter that has commands, files and variables of its own memory, and nothing else.

What bounds it is the cell: the interpreter's own limits are set so high that ours are met first, but
for the depth of functions and the sizes of a few commands.
"""

import os
from collections.abc import Mapping
from typing import Any

import bashkit

from .bash_files import Ask, Copy

START = "/workspace"
_MEMORY_BYTES = 64 << 20
_AS_GOOD_AS_NONE = 1_000_000_000
_TIMEOUT_SECONDS = 86_400.0


class Bash:
    """One shell, whose variables, functions and directory stay from run to run.

    Made before the cage is closed: what it waits with are descriptors that the cell then keeps.
    """

    def __init__(self) -> None:
        self._bash = bashkit.Bash(
            username="user",
            hostname="sandbox",
            cwd=START,
            max_commands=_AS_GOOD_AS_NONE,
            max_loop_iterations=_AS_GOOD_AS_NONE,
            max_memory=_MEMORY_BYTES,
            timeout_seconds=_TIMEOUT_SECONDS,
            profile=bashkit.ExecutionProfile.Interactive,
        )
        # Its own seed is that of its process, whose number in the cell's namespace tells nothing apart.
        seed = int.from_bytes(os.urandom(4), "little") & 0x7FFFFFFF
        self._bash.execute_sync(f"RANDOM={seed}")
        self._copy: Copy | None = None

    def run(self, code: str, env: Mapping[str, str], ask: Ask) -> dict[str, Any]:
        """Run a script to its end: its exit code and what it wrote, with notes about files on stderr."""
        if self._copy is None:
            self._copy = Copy(self._bash.fs(), ask)
        for name, value in env.items():
            self._bash.set_env(name, value)
        notes = self._copy.pull()
        done = self._bash.execute_sync(code)
        unsaved = self._copy.push()
        code_of = done.exit_code or (
            1 if any(one.startswith("[not saved") for one in unsaved) else 0
        )
        stderr = "\n".join(part for part in (*notes, done.stderr.rstrip("\n"), *unsaved) if part)
        return {"exit_code": code_of, "stdout": done.stdout, "stderr": stderr}
