import copy
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.sandboxes.snapshots import manifest as m
from handiwork.sandboxes.snapshots.packs import ChunkPlace
from handiwork.sandboxes.snapshots.sealing import DamagedError, Keys

KEYS = Keys(b"k" * 32)
PLACE = m.manifest_key("default", "sbx_aaaaaaaa", 3)


def tree():
    head = m.Head(
        tenant="default",
        sandbox_id="sbx_aaaaaaaa",
        number=3,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        reason="idle",
        image="abc",
        tree="t",
        started_ns=1,
        entries=4,
        content_bytes=10,
        new_bytes=10,
        packs=(b"p" * 16,),
        pack_bytes=(38,),
    )
    entries = [
        m.Entry(-1, b"", m.Kind.DIRECTORY, 0o755, 0, 0, 1),
        m.Entry(0, b"d", m.Kind.DIRECTORY, 0o755, 0, 0, 1),
        m.Entry(1, b"f", m.Kind.FILE, 0o644, 0, 0, 1, size=10, extents=(0, 0, 0, 10), linked=True),
        m.Entry(1, b"l", m.Kind.LINK, 0o644, 0, 0, 1, link=2),
    ]
    return m.Manifest(head, m.Body(chunks=(ChunkPlace(b"n" * 32, 0, 0, 38, 10),), entries=entries))


def test_it_reads_as_it_was_written():
    blob = m.encode(tree(), KEYS)
    assert m.decode(blob, PLACE, KEYS) == tree()
    assert m.decode_head(blob, PLACE, KEYS) == tree().head
    assert m.path_of(tree().body.entries, 3) == b"/d/l"


@given(st.data())
def test_a_torn_or_changed_blob_is_never_taken_for_whole(data):
    blob = m.encode(tree(), KEYS)
    cut = blob[: data.draw(st.integers(0, len(blob) - 1))]
    at = data.draw(st.integers(0, len(blob) - 1))
    changed = blob[:at] + bytes([blob[at] ^ 0x40]) + blob[at + 1 :]
    for bad in (cut, changed):
        with pytest.raises(DamagedError, match="sbx_aaaaaaaa"):
            m.decode(bad, PLACE, KEYS)


def test_another_generation_s_manifest_is_refused():
    with pytest.raises(DamagedError):
        m.decode(m.encode(tree(), KEYS), m.manifest_key("default", "sbx_aaaaaaaa", 4), KEYS)


CHANGES = [
    (1, "parent", 1, "no directory before"),
    (1, "parent", -1, "no directory before"),
    (3, "parent", 2, "no directory before"),
    (2, "name", b"..", "name"),
    (2, "name", b".", "name"),
    (2, "name", b"", "name"),
    (2, "name", b"../../etc/passwd", "name"),
    (2, "name", b"a\0b", "name"),
    (2, "name", b"n" * 256, r"no manifest.*entries\[2\]\[1\]"),
    (3, "name", b"f", "one name"),
    (0, "kind", m.Kind.SYMLINK, "no directory"),
    (2, "kind", 9, r"no manifest.*entries\[2\]\[2\]"),
    (2, "mode", 0o10644, r"no manifest.*entries\[2\]\[3\]"),
    (2, "uid", 65_536, r"no manifest.*entries\[2\]\[4\]"),
    (2, "gid", -1, r"no manifest.*entries\[2\]\[5\]"),
    (2, "size", 1 << 60, r"no manifest.*entries\[2\]\[7\]"),
    (2, "size", 9, "past an end"),
    (2, "extents", (0, 0, 0), "broken"),
    (2, "extents", (0, 1, 0, 10), "no chunk"),
    (2, "extents", (0, -1, 0, 10), "no manifest"),
    (2, "extents", (0, 0, 5, 10), "past an end"),
    (2, "extents", (0, 0, -1, 5), "no manifest"),
    (2, "extents", (5, 0, 0, 5, 0, 0, 0, 5), "no chunk"),
    (3, "link", 3, "no file before"),
    (3, "link", 1, "no file before"),
    (3, "link", -1, "no file before"),
    (2, "extents", (0, 0, 0, 0), "no chunk"),
    *((2, field, -1, "no manifest") for field in ("kind", "mode", "uid", "size")),
    *((2, field, 2**64 - 1, "no manifest") for field in ("kind", "mode", "uid", "gid", "size")),
    (2, "gid", 65_536, "no manifest"),
    (2, "extents", (-1, 0, 0, 10), "no manifest"),
    (2, "extents", (0, 0, 0, -1), "no manifest"),
    *(
        (2, "extents", tuple(2**64 - 1 if n == at else 0 for n in range(4)), "is no tree")
        for at in range(4)
    ),
    (2, "target", b"t" * 4096, "no manifest"),
    (2, "target", b"a\0", "target"),
    (2, "xattrs", ((b"user.a\0", b""),), "attribute"),
    (2, "xattrs", ((b"", b""),), "no manifest"),
    (2, "xattrs", ((b"n" * 256, b""),), "no manifest"),
    (2, "xattrs", ((b"user.a", bytes(m.MAX_XATTR_BYTES + 1)),), "no manifest"),
]


@pytest.mark.parametrize(("number", "field", "value", "why"), CHANGES)
def test_a_hostile_tree_is_refused(number, field, value, why):
    bad = copy.deepcopy(tree())
    setattr(bad.body.entries[number], field, value)
    with pytest.raises(DamagedError, match=why):
        m.decode(m.encode(bad, KEYS), PLACE, KEYS)


def test_one_more_name_of_nothing_is_refused_where_it_has_a_content_too():
    bad = copy.deepcopy(tree())
    bad.body.entries[3].link, bad.body.entries[3].size = 1, 10
    bad.body.entries[3].extents = (0, 0, 0, 10)
    with pytest.raises(DamagedError, match="no file before"):
        m.decode(m.encode(bad, KEYS), PLACE, KEYS)


@pytest.mark.parametrize(
    "place",
    [
        ChunkPlace(b"n", 1, 0, 38, 10),
        ChunkPlace(b"n", 0, -1, 38, 10),
        ChunkPlace(b"n", 0, 0, 38, 1 << 30),
    ],
)
def test_a_chunk_without_a_place_is_refused(place):
    bad = m.Manifest(tree().head, m.Body(chunks=(place,), entries=tree().body.entries))
    with pytest.raises(DamagedError, match="a chunk"):
        m.decode(m.encode(bad, KEYS), PLACE, KEYS)


def test_a_tree_of_too_many_names_is_refused(monkeypatch):
    blob = m.encode(tree(), KEYS)
    monkeypatch.setattr(m, "MAX_ENTRIES", len(tree().body.entries))
    assert m.decode(blob, PLACE, KEYS) == tree()
    monkeypatch.setattr(m, "MAX_ENTRIES", len(tree().body.entries) - 1)
    with pytest.raises(DamagedError, match=r"sbx_aaaaaaaa.* has 4 entries; 1 to 3 are a tree"):
        m.decode(blob, PLACE, KEYS)


@pytest.mark.parametrize("last", [m.Kind.DIRECTORY, m.Kind.FIFO])
def test_a_tree_too_deep_is_refused(last):
    bad = tree()
    for number in range(m.MAX_DEPTH - 1):
        parent = len(bad.body.entries) - 1 if number else 1
        bad.body.entries.append(m.Entry(parent, b"x", m.Kind.DIRECTORY, 0o755, 0, 0, 1))
    assert m.decode(m.encode(bad, KEYS), PLACE, KEYS) == bad
    bad.body.entries.append(m.Entry(len(bad.body.entries) - 1, b"x", last, 0o755, 0, 0, 1))
    with pytest.raises(DamagedError, match="deeper"):
        m.decode(m.encode(bad, KEYS), PLACE, KEYS)
