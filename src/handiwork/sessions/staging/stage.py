"""Puts what a session asked for into its workspace, once; what the agent made of it stays.

Git runs inside the sandbox, as its user, and leaves by its own socket: the egress policy decides,
and credentials are injected on the way. It gets no configuration but what stands here.
"""

import asyncio
import errno
import hashlib
from collections.abc import Sequence

import msgspec

from handiwork.config import StagingSettings
from handiwork.model.errors import GuestError, HandiworkError, UnsupportedError
from handiwork.model.sandbox import ExecRequest
from handiwork.sandboxes.protocol import Files, Sandbox
from handiwork.sessions.staging.files import read_file
from handiwork.sessions.staging.wishes import FileWish, GitWish, Wishes

WORKSPACE = "/workspace"
_PLACE = f"{WORKSPACE}/.handiwork"
_DONE = f"{_PLACE}/staged"
_OUTPUT_BYTES = 64 * 1024
_REASON_CHARACTERS = 300

_ENVIRONMENT = {
    "GIT_ALLOW_PROTOCOL": "https",
    "GIT_ASKPASS": "/bin/false",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
}
_CONFIGURATION = (
    "protocol.allow=never",
    "protocol.https.allow=always",
    "http.followRedirects=false",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "credential.helper=",
    "submodule.recurse=false",
    "advice.detachedHead=false",
)


async def stage(sandbox: Sandbox, wishes: Wishes, settings: StagingSettings) -> None:
    """Put everything in place; HandiworkError names what could not be, and why.

    A wish whose place is taken is left alone: the workspace outlives the session's rests.
    """
    files = sandbox.files
    digest = hashlib.sha256(msgspec.json.encode(wishes)).hexdigest().encode()
    if await _content(files, _DONE) == digest:
        return
    for repository in wishes.repositories:
        if not await _is_there(files, f"{WORKSPACE}/{repository.name}"):
            await _clone(sandbox, repository, settings.git_seconds)
    for wish in wishes.files:
        if not await _is_there(files, f"{WORKSPACE}/{wish.path}"):
            await _place(files, wish, settings.files_dir)
    await files.write(_DONE, digest)


async def _place(files: Files, wish: FileWish, directory: str) -> None:
    content = await asyncio.to_thread(read_file, directory, wish.file_id)
    await files.write(f"{WORKSPACE}/{wish.path}", content)


async def _clone(sandbox: Sandbox, wish: GitWish, seconds: float) -> None:
    """Clone beside its place, then move it there: a clone that broke off is never taken for one."""
    files, draft = sandbox.files, f"{_PLACE}/{wish.name}"
    if await _is_there(files, draft):
        await files.remove(draft, recursive=True)
    await files.mkdir(_PLACE)
    for argv in commands(wish, draft):
        await _git(sandbox, wish, argv, seconds)
    await files.move(draft, f"{WORKSPACE}/{wish.name}")


def commands(wish: GitWish, target: str) -> list[tuple[str, ...]]:
    """Return the git commands that clone a repository: every text of a stranger after `--` or `=`."""
    settings = [part for one in _CONFIGURATION for part in ("-c", one)]
    clone = ["git", *settings, "clone", "--quiet", "--no-recurse-submodules", "--template="]
    if not wish.is_commit:
        branch = [f"--branch={wish.ref}"] if wish.ref else []
        return [(*clone, *branch, "--", wish.url, target)]
    checkout = ["git", *settings, "-C", target, "checkout", "--quiet", "--detach", wish.ref, "--"]
    return [(*clone, "--no-checkout", "--", wish.url, target), tuple(checkout)]


async def _git(sandbox: Sandbox, wish: GitWish, argv: Sequence[str], seconds: float) -> None:
    request = ExecRequest(
        argv=tuple(argv),
        cwd="/",
        env=_ENVIRONMENT,
        timeout_seconds=seconds,
        output_limit_bytes=_OUTPUT_BYTES,
        merge_stderr=True,
    )
    try:
        result = await sandbox.exec(request)
    except GuestError as error:
        if error.errno == errno.ENOENT:
            raise UnsupportedError("the sandbox's image has no git, so nothing is cloned") from None
        raise
    if result.timed_out:
        raise HandiworkError(f"git did not clone {wish.url} within {seconds:g} s")
    if result.exit_code:
        raise HandiworkError(f"git cannot clone {wish.url}: {_reason(result.stdout)}")


def _reason(output: bytes) -> str:
    """Return the last line that git said, in plain characters: a server may have written it."""
    lines = [line for line in output.decode("ascii", "replace").splitlines() if line.strip()]
    said = "".join(one if one.isprintable() else " " for one in (lines or ["it says nothing"])[-1])
    return said.strip()[:_REASON_CHARACTERS]


async def _is_there(files: Files, path: str) -> bool:
    try:
        await files.stat(path, follow=False)
    except GuestError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise
    return True


async def _content(files: Files, path: str) -> bytes:
    try:
        return await files.read(path, limit_bytes=1000)
    except GuestError:
        return b""
