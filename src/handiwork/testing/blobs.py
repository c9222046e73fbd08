"""Blobs in memory that fail when a test says so."""

import threading
from collections.abc import Callable, Iterator

from handiwork.model.errors import NotFoundError, SandboxUnavailableError
from handiwork.store.blobs import check_key, is_key

Fault = Callable[[str, str], None]
"""Is told the verb and the key before anything happens; what it raises is what the caller sees."""


class FakeBlobs:
    """Implements `store.blobs.Blobs`. `fault` is asked before each call."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.fault: Fault | None = None
        self._lock = threading.Lock()

    def fail_at(self, number: int) -> None:
        """Fail the call of that number, counted from now and from 0, and each one after it."""
        first = len(self.asked) + number

        def fault(verb: str, key: str) -> None:
            if len(self.asked) > first:
                raise SandboxUnavailableError(f"the test's store refuses to {verb} {key}")

        self.fault = fault

    def put(self, key: str, data: bytes) -> None:
        """Keep bytes under a key."""
        self._ask("put", key)
        with self._lock:
            self.kept[key] = bytes(data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Keep bytes unless the key is taken."""
        self._ask("put_if_absent", key)
        with self._lock:
            return self.kept.setdefault(key, kept := bytes(data)) is kept

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        """Return the bytes of a key."""
        self._ask("get", key)
        try:
            return self.kept[key][:limit_bytes]
        except KeyError:
            raise NotFoundError(f"the test's store has no {key}") from None

    def list(self, prefix: str) -> Iterator[str]:
        """Yield every key below a prefix."""
        self._ask("list", prefix)
        yield from [key for key in self.kept if key.startswith(f"{prefix}/") and is_key(key)]

    def delete(self, key: str) -> None:
        """Forget a key."""
        self._ask("delete", key)
        self.kept.pop(key, None)

    def _ask(self, verb: str, key: str) -> None:
        check_key(key)
        with self._lock:
            self.asked.append((verb, key))
        if self.fault is not None:
            self.fault(verb, key)
