"""What each target begins with: what it would take long to come upon by chance."""

import json
import struct
from collections.abc import Mapping
from typing import Any


def _frame(message: Any, cut: int = 255) -> bytes:
    text = message if isinstance(message, bytes) else json.dumps(message).encode()
    return bytes([cut]) + struct.pack("<I", len(text)) + text


_FRAMES = (
    _frame(
        {
            "t": "turn",
            "l": [["log", "a line"]],
            "c": [{"id": 1, "n": "codemode.a", "a": {"x": [1]}}],
        }
    ),
    _frame({"t": "turn", "l": [], "c": []}, 0),
    _frame({"t": "done", "ok": True, "v": {"a": [1, None, "\u00fc\\"]}}, 2),
    _frame({"t": "done", "ok": False, "e": {"name": "N", "message": "m", "stack": "s"}}),
    _frame(b'{"t":"done","ok":true,"v":"\\ud83d\\ude00"}'),
    _frame(b'{"t":"turn","c":[{"id":1,"n":"x","a":' + b"[" * 40 + b"]" * 40 + b"}]}"),
    _frame(b'{"t":"done","ok":true,"v":[1e308,"1e999",-1.5E+300]}'),
    b"\x03" + _frame({"t": "turn"})[1:] + _frame({"t": "done", "ok": True})[1:],
    b"\x01\xff\xff\xff\xff",
)
_ANSWERS = (
    b"\x00HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    b"\x03HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n",
    b"\x06HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
    b"\x01HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
    b"\x02HTTP/1.0 200 OK\r\n\r\nuntil the end of it",
    b"\x05HTTP/1.1 302 Found\r\nlocation: http://b.test/\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"\xffHTTP/1.1 101 Switch\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n\x00\x01",
    b"\x00HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 25\r\n\r\n"
    + bytes.fromhex("1f8b08000000000000ffcb48cdc9c907008 6a6103605000000".replace(" ", "")),
)
_FETCHES = (
    b"GET\nhttp://a.test/x?y#z\n/other\naccept: */*\nhost: b",
    b"POST\nhttps://a.test:8443/\nhttps://b.test/\nauthorization: x\ncontent-type: y\ncookie: z",
    b"HEAD\nhttp://[::1]/\n//c.test/path\nx-a: 1\nx-a: 2",
    b"PUT\nhttp://a.test\nhttp://a.test:80/\nproxy-authorization: x",
    b"GET\nhttp://u:p@a.test/\n?q",
)
_ARGUMENTS = (
    b'{"path":"a","content":"b"}',
    b'{"$arguments":["a","b",3]}',
    b'{"$arguments":["a"],"content":"\\ud800"}',
    b'{"a":[1,{"b":[]}],"b":null}',
    b"text\n```js\nconst a = `x`;\n```\nmore",
    b'```python\nprint("""\n```\n""")\n```',
    b"~~~~ ts\n 1\n~~~~",
    b"import d, { a as b } from './a.mjs'\nimport * as c from \"./c.mjs\";\nd",
)
_MASKED = (
    b"\x00\x03key: sk-ab12ab12, 736b2D61623132616231 322d",
    b"\x00\x00sk-ab12absk-ab12ab12",
    b"\x01\x05" + b'p\\"a\\/s\\\\s %41 p%22a%2Fs%5Cs+%2541',
    b"\x02\x02\\u00e4\\u20ac-\\ud83d\\ude00x \\u00E4\\u20AC\\u002d",
    b"\x03\x01//9hYmFiL2FiYWI=",
    b"\x04\x08c2stYWIxMmFiMTI=c2stYWIxMmFiMTJ21ba21ba-ks",
)
_CODED = (
    b"\x00\x03" + bytes.fromhex("1f8b0800000000000003cb48cdc9c9070086a6103605000000") * 2,
    b"\x01\x00" + bytes.fromhex("789ccb48cdc9c907000 62c0215".replace(" ", "")),
    b"\x01\x01" + bytes.fromhex("cb48cdc9c90700"),
    b"\x02\x02" + bytes.fromhex("0b028068656c6c6f03"),
    b"\x03\x01" + bytes.fromhex("28b52ffd200529000068656c6c6f"),
)
_SOCKET = (
    b"\x02\x81\x05hello\x89\x02hi\x88\x02\x03\xe8",
    b"\x00\x01\x03sk-\x89\x00\x80\x06abab12",
    b"\x05\x81\x85\x01\x02\x03\x04hello\x8a\x80\x01\x02\x03\x04",
    b"\x07\x82\x7e\x00\x80" + b"sk-abab12" + bytes(119),
)
SEEDS: Mapping[str, tuple[bytes, ...]] = {
    "frames": _FRAMES,
    "exchange": _ANSWERS,
    "fetch_rules": _FETCHES,
    "arguments": _ARGUMENTS,
    "mask": _MASKED,
    "decoding": _CODED,
    "websocket": _SOCKET,
}
