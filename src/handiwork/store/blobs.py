"""The port of large immutable things: packs and manifests of snapshots, on a directory or on S3.

Every call blocks, so make it in a thread. A key is a plain relative path of `a-z 0-9 . _ -` parts.
`SandboxUnavailableError` where the store cannot be reached, is full, or answers with nonsense.
"""

import re
from collections.abc import Iterator
from typing import Protocol

_KEY = re.compile(r"[a-z0-9_-][a-z0-9._-]{0,127}(/[a-z0-9_-][a-z0-9._-]{0,127}){0,7}")


class Blobs(Protocol):
    """Bytes by key."""

    def put(self, key: str, data: bytes) -> None:
        """Keep bytes durably under a key, in place of what was there, whole or not at all."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Keep bytes durably unless the key is taken; say whether they were. One of two writers wins."""
        ...

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        """Return the bytes, at most the first `limit_bytes`; NotFoundError when there are none."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Yield every key below a prefix, which is a whole part of the path, in no order.

        What lies there under a name that is no key is nobody's blob: it is passed over and logged.
        """
        ...

    def delete(self, key: str) -> None:
        """Forget a key. No-op when there is nothing."""
        ...


def is_key(key: str) -> bool:
    """Say whether a path is one that a blob can have."""
    return _KEY.fullmatch(key) is not None


def check_key(key: str) -> str:
    """Return the key unchanged; ValueError for one that is no plain path."""
    if not is_key(key):
        raise ValueError(f"{key[:80]!r} is no key of a blob")
    return key
