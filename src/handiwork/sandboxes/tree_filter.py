"""An archive on its way into a sandbox or out of one, as far as the host judges it. Pure.

A tar goes by in pieces; what is read of it are its headers. Devices and FIFOs are taken out and
named, and all else passes as it came: files, directories, links. What is no archive, leads out of
its own tree by a name or a hard link, or is over a limit ends it. Where a symbolic link leads is for
whoever follows it: inside, that is the sandbox's own root.
"""

from collections.abc import Mapping

from handiwork.model.errors import ConfigError
from handiwork.model.sandbox import TreeReport
from handiwork.sandboxes.images import tars
from handiwork.sandboxes.images.rules import ImageLimits, parts_of, shown
from handiwork.sandboxes.images.tars import BLOCK

NAMED = 100
"""So many of what was left out are named; the rest is counted."""
RULES = ImageLimits(depth=2048, extension_bytes=64 << 10)
END = bytes(2 * BLOCK)


class TooLargeError(ConfigError):
    """The archive is over a limit; the message says which."""


class TreeFilter:
    """One archive. `take` it whole, in order; then ask for the `report`."""

    def __init__(self, *, most_bytes: int, most_entries: int) -> None:
        self.ended = False
        self._most_bytes = most_bytes
        self._most_entries = most_entries
        self._bytes = self._entries = self._skipped = 0
        self._names: list[str] = []
        self._waiting = bytearray()
        self._content = 0
        self._held = bytearray()
        self._kinds: set[bytes] = set()
        self._records: dict[bytes, bytes] = {}
        self._global_records: dict[bytes, bytes] = {}

    def take(self, piece: bytes) -> bytes:
        """Return what of it may pass. ConfigError.

        The archive's end does not, nor what comes after: `END` is for who knows that all went well.
        """
        self._bytes += len(piece)
        if self._bytes > self._most_bytes:
            raise TooLargeError(f"the archive has more than {self._most_bytes} bytes")
        passed = bytearray()
        self._waiting += piece
        while not self.ended and self._step(passed):
            pass
        if self.ended:
            self._waiting.clear()
        return bytes(passed)

    @property
    def is_inside(self) -> bool:
        """Whether what passed up to now ends within a member's content."""
        return self._content > 0

    def report(self, notes: str = "") -> TreeReport:
        """Tell what went by."""
        return TreeReport(
            entries=self._entries,
            bytes=self._bytes,
            skipped=tuple(self._names),
            skipped_count=self._skipped,
            notes=notes,
        )

    def _step(self, passed: bytearray) -> bool:
        """Go on by a piece of content or a header; False when more has to come first."""
        if self._content:
            part = self._waiting[: self._content]
            del self._waiting[: len(part)]
            self._content -= len(part)
            passed += part
            return bool(part)
        if len(self._waiting) < BLOCK:
            return False
        header = bytes(self._waiting[:BLOCK])
        if not any(header):
            self.ended = True
            return True
        tars.check_sum(header)
        if header[156:157] in tars.EXTENSIONS:
            return self._extend(header)
        del self._waiting[:BLOCK]
        self._enter(header, passed)
        return True

    def _extend(self, header: bytes) -> bool:
        """Hold what tells of the next member until that is known."""
        length = tars.number(header[124:136])
        if length > RULES.extension_bytes or len(self._held) > RULES.extension_bytes:
            raise ConfigError("the tar archive has an extended header that is too long")
        whole = BLOCK + _padded(length)
        if len(self._waiting) < whole:
            return False
        kind, body = header[156:157], bytes(self._waiting[BLOCK : BLOCK + length])
        told = tars.extension(kind, body)
        self._refuse_twice(kind, told)
        (self._global_records if kind == tars.PAX_GLOBAL else self._records).update(told)
        if len(self._global_records) > RULES.extension_bytes // BLOCK:
            raise ConfigError("the tar archive tells too much of all its members")
        self._held += self._waiting[:whole]
        del self._waiting[:whole]
        return True

    def _refuse_twice(self, kind: bytes, told: Mapping[bytes, bytes]) -> None:
        """Refuse what readers understand differently: which of two names or sizes stands, or that one is empty."""
        late = kind == tars.PAX_GLOBAL and self._kinds - {kind}
        again = kind != tars.PAX_GLOBAL and (
            kind in self._kinds or told.keys() & self._records.keys()
        )
        if late or again:
            raise ConfigError("the tar archive tells twice of one member")
        if any(told.get(key) == b"" for key in (b"path", b"linkpath", b"size")):
            raise ConfigError("the tar archive tells an empty name or size of a member")
        self._kinds.add(kind)

    def _enter(self, header: bytes, passed: bytearray) -> None:
        tars.check_prefix(header)
        told = {**self._global_records, **self._records}
        found = tars.member(header, told, tars.length_of(header, told), 0)
        self._entries += 1
        if self._entries > self._most_entries:
            raise TooLargeError(f"the archive has more than {self._most_entries} entries")
        parts_of(found.name, RULES)
        if found.kind == "hard":
            parts_of(found.target, RULES)
        if found.kind in tars.KINDS.values():
            passed += self._held + header
            self._content = _padded(found.size)
        else:
            self._skip(found.name, found.kind)
        self._held.clear()
        self._kinds.clear()
        self._records.clear()

    def _skip(self, name: bytes, kind: str) -> None:
        self._skipped += 1
        if len(self._names) < NAMED:
            self._names.append(f"{shown(name)[1:-1]}: {kind}")


def _padded(length: int) -> int:
    return -(-length // BLOCK) * BLOCK
