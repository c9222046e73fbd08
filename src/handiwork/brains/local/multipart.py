"""The one form of upload: `multipart/form-data`, whole in memory, read strictly. Pure."""

import re

import msgspec

MAX_PARTS = 1000
MAX_HEAD_BYTES = 8 * 1024

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER = re.compile(r';\s*([a-z*]+)\s*=\s*(?:"([^"]*)"|([^\s;"]+))', re.IGNORECASE)
_ESCAPE = re.compile(r"%(22|0A|0D)", re.IGNORECASE)


class MultipartError(ValueError):
    """The body is not a form; the text says why."""


class Part(msgspec.Struct, frozen=True):
    """A field of the form; a file has its client's name for it, slashes and all."""

    name: str
    filename: str | None
    content: bytes


def boundary_of(content_type: str) -> bytes:
    """Return the delimiter that a Content-Type names."""
    kind, _, rest = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data":
        raise MultipartError("content-type: must be multipart/form-data")
    boundary = _parameters(f";{rest}").get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise MultipartError("content-type: has no valid boundary")
    return boundary.encode()


def parts_of(body: bytes, boundary: bytes) -> list[Part]:
    """Return the form's fields in order."""
    delimiter = b"\r\n--" + boundary
    pieces = (b"\r\n" + body).split(delimiter, MAX_PARTS + 2)
    if len(pieces) < 2 or pieces[0].strip(b"\r\n") != b"":
        raise MultipartError("the body does not begin with its boundary")
    if len(pieces) > MAX_PARTS + 2:
        raise MultipartError(f"the body has more than {MAX_PARTS} parts")
    if not pieces[-1].startswith(b"--") or pieces[-1][2:].strip(b"\r\n\t ") != b"":
        raise MultipartError("the body does not end with its boundary: it was cut")
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> Part:
    if not piece.startswith(b"\r\n"):
        raise MultipartError("a boundary is not a line of its own")
    head, found, content = piece.partition(b"\r\n\r\n")
    if not found or len(head) > MAX_HEAD_BYTES:
        raise MultipartError("a part has no head, or one that is too long")
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError:
        raise MultipartError("a part's head is not UTF-8") from None
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            return _disposed(value, content)
    raise MultipartError("a part has no content-disposition")


def _disposed(value: str, content: bytes) -> Part:
    kind, _, rest = value.partition(";")
    given = _parameters(f";{rest}")
    if kind.strip().lower() != "form-data" or "name" not in given:
        raise MultipartError("a part is no field of a form")
    filename = given.get("filename")
    return Part(_plain(given["name"]), None if filename is None else _plain(filename), content)


def _parameters(text: str) -> dict[str, str]:
    return {
        found[1].lower(): found[2] if found[3] is None else found[3]
        for found in _PARAMETER.finditer(text)
    }


def _plain(text: str) -> str:
    """Undo the escapes that HTML prescribes for names."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
