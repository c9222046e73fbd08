"""What an agent left for its user in `/workspace/outputs`, read through the sandbox's own agent."""

import errno
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from handiwork.model.errors import GuestError, NotFoundError
from handiwork.model.sandbox import FileKind
from handiwork.model.wire import OutputFile
from handiwork.sandboxes.protocol import Files, Sandbox
from handiwork.sessions.walk import walk
from handiwork.store.protocol import Store

OUTPUTS = "/workspace/outputs"


async def list_outputs(files: Files) -> tuple[OutputFile, ...]:
    """Return every plain file with a name that is text, by path; none without the directory."""
    found = await walk(files, OUTPUTS) or []
    return tuple(
        OutputFile(path=one.path, size=one.info.size, mtime_ns=one.info.mtime_ns)
        for one in sorted(found, key=lambda one: one.path)
        if one.info.kind is FileKind.FILE and one.is_named
    )


class Lender(Protocol):
    """Where a sandbox is borrowed from, to look at."""

    def lend(self, sandbox_id: str) -> AbstractAsyncContextManager[Sandbox]:
        """Yield it running; one that slept sleeps again."""
        ...


async def outputs_of(store: Store, sandboxes: Lender, session_id: str) -> tuple[OutputFile, ...]:
    """Return a session's outputs. A sleeping sandbox is woken, and sleeps again."""
    session = await store.sessions.get(session_id)
    if not session.sandbox_id:
        return ()
    async with sandboxes.lend(session.sandbox_id) as sandbox:
        return await list_outputs(sandbox.files)


async def read_output(files: Files, path: str) -> bytes:
    """Return one file's bytes; NotFoundError for all that `list_outputs` does not tell."""
    missing = NotFoundError(f"the session has no output {path[:200]!r}")
    if any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
        raise missing
    place = f"{OUTPUTS}/{path}"
    try:
        if await files.realpath(place) != place:
            raise missing  # a link leads elsewhere
        if (await files.stat(place, follow=False)).kind is not FileKind.FILE:
            raise missing
        return await files.read(place)
    except GuestError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise missing from None
        raise
