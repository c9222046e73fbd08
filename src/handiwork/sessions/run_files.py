"""The files that an agent left for its user."""

import errno

from handiwork.model.errors import GuestError, NotFoundError, SandboxUnavailableError
from handiwork.model.run import OutputFile
from handiwork.model.sandbox import FileKind, SandboxState
from handiwork.sandboxes.protocol import Files
from handiwork.sessions.sandboxes import LiveSandboxes
from handiwork.store.protocol import Store

OUTPUTS = "/workspace/outputs"
MAX_FILES = 1000
MAX_DEPTH = 16


async def left_files(
    store: Store, sandboxes: LiveSandboxes, session_id: str
) -> tuple[OutputFile, ...]:
    """Return what stands in the outputs of a session, by path; of many the first thousand.

    SandboxUnavailableError: its sandbox does not run.
    """
    try:
        sandbox_id = (await store.sessions.get(session_id)).sandbox_id
        record = await store.sandboxes.get(sandbox_id)
    except NotFoundError:
        return ()
    if record.state is not SandboxState.RUNNING:
        raise SandboxUnavailableError(f"the sandbox {sandbox_id} is {record.state.value}")
    files = (await sandboxes.use(sandbox_id)).files
    found: list[OutputFile] = []
    await _collect(files, OUTPUTS, MAX_DEPTH, found)
    return tuple(found)


async def _collect(files: Files, directory: str, depth: int, found: list[OutputFile]) -> None:
    try:
        entries = await files.list(directory, limit=MAX_FILES)
    except GuestError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return
        raise
    for entry in sorted(entries, key=lambda one: one.name):
        if len(found) >= MAX_FILES:
            return
        path = f"{directory}/{entry.name}"
        if entry.kind is FileKind.DIRECTORY and depth > 0:
            await _collect(files, path, depth - 1, found)
        elif entry.kind is FileKind.FILE:
            shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            found.append(OutputFile(path=shown, size=entry.size))
