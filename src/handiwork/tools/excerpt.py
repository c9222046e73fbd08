"""What is kept of a long output: all of it while it is short, else its head and its tail. Pure."""

import re

TEXT_LIMIT = 100_000
"""So many characters of text a result may have; what is longer is kept in a file of the sandbox."""

HEAD_CHARACTERS = 8_000
TAIL_CHARACTERS = 24_000
NOTE_CHARACTERS = 1_000
"""Room that a tool has for what it says beside an output."""

_WHOLE_BYTES = 4 * TEXT_LIMIT
_HEAD_BYTES = 4 * HEAD_CHARACTERS
_TAIL_BYTES = 4 * TAIL_CHARACTERS
_ANSI = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]+[0-~]|[@-Z\\-_])"
)


class Excerpt:
    """The bytes of one output as far as they are held. `total` counts all that were added."""

    def __init__(self) -> None:
        self.total = 0
        self.overflowed = False
        self._head = bytearray()
        self._tail = bytearray()

    def add(self, chunk: bytes) -> bytes:
        """Take a chunk in; return what is not held any more as a whole and has to be kept elsewhere.

        Nothing while the output is short; when it grows past that, all of it so far; then each chunk.
        """
        self.total += len(chunk)
        if self.overflowed:
            self._tail += chunk[-_TAIL_BYTES:]
            if len(self._tail) > 2 * _TAIL_BYTES:  # not at every chunk: a line may be one
                del self._tail[:-_TAIL_BYTES]
            return chunk
        self._head += chunk
        if len(self._head) <= _WHOLE_BYTES:
            return b""
        return self.overflow()

    def overflow(self) -> bytes:
        """Hold head and tail alone from here on; return all that was held. Once."""
        self.overflowed = True
        held = bytes(self._head)
        del self._head[_HEAD_BYTES:]
        self._tail = bytearray(held[_HEAD_BYTES:][-_TAIL_BYTES:])
        return held

    def whole(self) -> str | None:
        """Return the text, without its last line feeds; None when it is too long for a result."""
        if self.overflowed:
            return None
        text = plain(bytes(self._head)).rstrip("\n")
        return text if len(text) <= TEXT_LIMIT - NOTE_CHARACTERS else None

    def head(self) -> str:
        """Return the first characters."""
        return plain(bytes(self._head))[:HEAD_CHARACTERS]

    def tail(self) -> str:
        """Return the last characters, without the last line feeds."""
        return plain(bytes(self._tail)).rstrip("\n")[-TAIL_CHARACTERS:]


def plain(data: bytes) -> str:
    """Return a command's output as text: escape sequences of terminals gone, bad bytes U+FFFD."""
    return _ANSI.sub("", data.decode("utf-8", "replace"))


def shortened(head: str, tail: str, note: str) -> str:
    """Return what a model reads of a long text."""
    return f"{head}\n\n[… {note} …]\n\n{tail}"
