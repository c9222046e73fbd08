"""The archive, against a reader written from cpio(5)."""

import stat

from handiwork.sandboxes.microvm.cpio import Entry, archive


def members(data):
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name = data[at + 110 : at + 110 + fields[11] - 1].decode()
        body = at + (110 + fields[11] + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert not data[body:].strip(b"\0")
            return
        yield name, fields, data[body : body + fields[6]]
        at = body + (fields[6] + 3) // 4 * 4


def test_entries_are_read_back():
    made = archive(
        [
            Entry(path="modules"),
            Entry(path="init", content=b"\x7fELF", mode=0o755),
            Entry(path="modules/odd.ko", content=b"12345"),
            Entry(path="empty", content=b""),
        ]
    )
    found = list(members(made))
    assert [(name, content) for name, _, content in found] == [
        ("modules", b""),
        ("init", b"\x7fELF"),
        ("modules/odd.ko", b"12345"),
        ("empty", b""),
    ]
    modes = [fields[1] for _, fields, _ in found]
    assert stat.S_ISDIR(modes[0])
    assert modes[1] == stat.S_IFREG | 0o755
    assert all(fields[2:4] == [0, 0] for _, fields, _ in found)
    assert len({fields[0] for _, fields, _ in found}) == 4
