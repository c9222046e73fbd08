"""Whether a long text holds a short one, by the C library's `memmem`.

It skips by pairs of bytes where Python's own search skips by single ones: on text and on random
bytes alike it is about twice as fast for what the length of a secret is. A call costs more, so
what is shorter than `LONG_BYTES` is better left to Python.
"""

import ctypes

LONG_BYTES = 4096

_memmem = ctypes.PyDLL(None).memmem
_memmem.restype = ctypes.c_void_p
_memmem.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)


def holds(text: bytes, part: bytes) -> bool:
    """Say whether the part stands in the text."""
    return _memmem(text, len(text), part, len(part)) is not None
