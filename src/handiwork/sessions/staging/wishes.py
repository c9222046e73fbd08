"""Session metadata as wishes: `handiwork.git.NAME` and `handiwork.file.PATH`. Pure and strict.

Whoever may create a session writes the metadata. A wish names a place in the workspace and what is
to be there, in a few plain characters, so that nothing of it can pass for an option, another
transport or another host; anything else refuses the session, by the key.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from handiwork.model.errors import PolicyDeniedError, UnsupportedError

GIT_PREFIX = "handiwork.git."
FILE_PREFIX = "handiwork.file."
MAX_WISHES = 16

_RESERVED = ("skills", "outputs")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]{0,62})(\.[a-z0-9]([a-z0-9-]{0,62}))+")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}")
_URL = re.compile(r"https://[A-Za-z0-9.-]+(:443)?(/[A-Za-z0-9_~][A-Za-z0-9._~-]*)+/?")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitWish:
    """A repository to clone to `/workspace/NAME`; `ref` empty: its default branch."""

    name: str
    url: str
    ref: str = ""

    @property
    def is_commit(self) -> bool:
        """Say whether the ref is the full name of a commit."""
        return _COMMIT.fullmatch(self.ref) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileWish:
    """A file of the operator's store to be written to `/workspace/PATH`."""

    path: str
    file_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """All that one session asks for."""

    repositories: tuple[GitWish, ...] = ()
    files: tuple[FileWish, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.repositories or self.files)


def read(metadata: Mapping[str, str], git_hosts: Sequence[str]) -> Wishes:
    """Return what the metadata asks for; other keys are not ours.

    UnsupportedError for a wish that is malformed, PolicyDeniedError for a host that is not listed.
    """
    repositories, files = list[GitWish](), list[FileWish]()
    for key, value in sorted(metadata.items()):
        if key.startswith(GIT_PREFIX):
            repositories.append(_repository(key, value, git_hosts))
        elif key.startswith(FILE_PREFIX):
            files.append(_file(key, value))
    if len(repositories) + len(files) > MAX_WISHES:
        raise UnsupportedError(f"the session's metadata asks for more than {MAX_WISHES} things")
    return Wishes(repositories=tuple(repositories), files=tuple(files))


def is_file_id(text: str) -> bool:
    """Say whether a text can be the id of a file: one plain name."""
    return _PART.fullmatch(text) is not None


def _repository(key: str, value: str, git_hosts: Sequence[str]) -> GitWish:
    name = key.removeprefix(GIT_PREFIX)
    if not _PART.fullmatch(name) or name in _RESERVED:
        raise _malformed(key, "NAME must be one plain name, not 'skills' or 'outputs'")
    url, sharp, ref = value.partition("#")
    if not _URL.fullmatch(url):
        raise _malformed(key, "the value must be https://HOST/PATH[#REF], without credentials")
    if (sharp or ref) and not _is_ref(ref):
        raise _malformed(key, "REF must be a branch, a tag or a full commit")
    host = urlsplit(url).hostname or ""
    if not _HOST.fullmatch(host) or host not in git_hosts:
        raise PolicyDeniedError(
            f"the session's metadata {key[:64]!r} names a git host that staging.git_hosts does not"
            f" list: {host[:80]!r}",
            rule_id="staging.git_hosts",
        )
    return GitWish(name=name, url=url, ref=ref)


def _file(key: str, value: str) -> FileWish:
    path = key.removeprefix(FILE_PREFIX)
    parts = path.split("/")
    if not all(map(_PART.fullmatch, parts)) or parts[0] == _RESERVED[0]:
        raise _malformed(key, "PATH must be plain names with slashes, not below 'skills'")
    if not is_file_id(value):
        raise _malformed(key, "the value must be the id of a file: one plain name")
    return FileWish(path=path, file_id=value)


def _is_ref(ref: str) -> bool:
    """Say whether it can name a branch, a tag or a commit (git-check-ref-format), and no more."""
    return (
        _REF.fullmatch(ref) is not None
        and ".." not in ref
        and "//" not in ref
        and not ref.endswith(("/", ".", ".lock"))
        and "/." not in ref
    )


def _malformed(key: str, how: str) -> UnsupportedError:
    return UnsupportedError(f"the session's metadata {key[:64]!r} cannot be staged: {how}")
