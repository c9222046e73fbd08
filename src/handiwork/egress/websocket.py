"""WebSocket frames (RFC 6455) as they stream: read one way or the other, and masked.

No extension is ever on where this is used, so reserved bits are zero. Only what is refused here
is not passed on: frames keep their order, their borders and their lengths.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from handiwork.egress.mask import Mask

MAX_CONTROL_BYTES = 125
MAX_FRAME_BYTES = 1 << 40
MAX_WAITING_BYTES = 65_536
_CONTINUATION, _BINARY, _CLOSE, _PONG = 0, 2, 8, 10
_CODE_BYTES = 2


class WebSocketError(ValueError):
    """The bytes are no frames that the side may send."""


class Piece(NamedTuple):
    """A part of a frame: its `head` if it is the first, its `payload` as far as it came.

    Payload of a client stays under its masking key. A control frame is one piece.
    """

    head: bytes
    payload: bytes
    control: bool
    opcode: int
    ends_message: bool


class Frames:
    """Reads the frames of one side; a client's are `masked`, a server's are not."""

    def __init__(self, *, masked: bool) -> None:
        self._masked = masked
        self._input = b""
        self._left = 0
        self._opcode = 0
        self._final = True
        self._in_message = False

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Take the next bytes, yield what they hold; WebSocketError when they are no frames."""
        data, self._input = self._input + data, b""
        place = 0
        while place < len(data):
            if self._left:
                payload = data[place : place + self._left]
                place += len(payload)
                self._left -= len(payload)
                yield self._piece(b"", payload)
                continue
            head = self._head(data, place)
            length = self._left
            if head is None or (self._opcode >= _CLOSE and len(data) < place + len(head) + length):
                self._left = 0
                self._input = data[place:]
                return
            place += len(head)
            payload = data[place : place + length]
            place += len(payload)
            self._left = length - len(payload)
            yield self._piece(head, payload)

    @property
    def between(self) -> bool:
        """Whether no frame has been begun."""
        return not (self._input or self._left)

    def _piece(self, head: bytes, payload: bytes) -> Piece:
        control = self._opcode >= _CLOSE
        ends = not control and self._final and not self._left
        if not control:
            self._in_message = not ends
        return Piece(head, payload, control, self._opcode, ends)

    def _head(self, data: bytes, place: int) -> bytes | None:
        """Return the head that begins at a place, if it is whole; note what it says."""
        if len(data) - place < 2:
            return None
        first, second = data[place], data[place + 1]
        size, length = 2, second & 0x7F
        self._begin(first, second, length)
        if length > MAX_CONTROL_BYTES:
            size = 4 if length == 126 else 10
            length = int.from_bytes(data[place + 2 : place + size], "big")
        size += 4 if self._masked else 0
        head = data[place : place + size]
        if len(head) < size:
            return None
        if size - (4 if self._masked else 0) > 2:
            _check_length(second & 0x7F, length)
        self._left = length
        return head

    def _begin(self, first: int, second: int, length: int) -> None:
        opcode, final = first & 0x0F, bool(first & 0x80)
        if first & 0x70:
            raise WebSocketError("a frame uses an extension that was not agreed on")
        if opcode >= _CLOSE:
            if opcode > _PONG or not final or length > MAX_CONTROL_BYTES:
                raise WebSocketError("a control frame is not of a known kind and size")
        elif opcode > _BINARY or (opcode == _CONTINUATION) != self._in_message:
            raise WebSocketError("a frame does not follow the one before")
        if bool(second & 0x80) != self._masked:
            raise WebSocketError("a frame is under a masking key, or is not, against the rules")
        self._opcode, self._final = opcode, final


def _check_length(told: int, length: int) -> None:
    least = 126 if told == 126 else 65_536
    if not least <= length <= MAX_FRAME_BYTES:
        raise WebSocketError("the length of a frame is too large, or not in its shortest form")


class MaskedFrames:
    """Masks what a server sends: each message as one text across its frames, control frames whole.

    Where the end of a fragment could be the beginning of a secret, it waits for the next one; a
    control frame that comes meanwhile waits with it, as it cannot stand inside a frame.
    """

    def __init__(self, mask: Mask) -> None:
        self._frames = Frames(masked=False)
        self._mask = mask
        self._taken = self._given = 0
        self._between: deque[tuple[int, bytes]] = deque()
        self._waiting = 0

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the server, return what may be passed on of them."""
        return b"".join([part for piece in self._frames.feed(data) for part in self._shown(piece)])

    def finish(self) -> bytes:
        """Return what was held back: the connection is over."""
        return b"".join(self._in_order(self._mask.finish()))

    def _shown(self, piece: Piece) -> list[bytes]:
        if piece.control:
            code = _CODE_BYTES if piece.opcode == _CLOSE else 0
            shown = self._mask.apply(piece.payload[code:])
            self._put(piece.head + piece.payload[:code] + shown)
            return self._in_order(b"")
        if piece.head:
            self._put(piece.head)
        self._taken += len(piece.payload)
        if not piece.ends_message:
            return self._in_order(self._mask.feed(piece.payload))
        shown_parts = self._in_order(self._mask.finish(piece.payload))
        self._taken = self._given = 0
        return shown_parts

    def _put(self, data: bytes) -> None:
        """Let bytes stand behind all payload taken so far."""
        self._between.append((self._taken, data))
        self._waiting += len(data)
        if self._waiting > MAX_WAITING_BYTES:
            raise WebSocketError("too much comes inside a message that does not go on")

    def _in_order(self, payload: bytes) -> list[bytes]:
        """Return payload with what stands between its bytes."""
        parts: list[bytes] = []
        cut = 0
        end = self._given + len(payload)
        while self._between and self._between[0][0] <= end:
            place, data = self._between.popleft()
            self._waiting -= len(data)
            parts += (payload[cut : place - self._given], data)
            cut = place - self._given
        self._given = end
        return [*parts, payload[cut:]]
