import pytest

from handiwork.sandboxes.snapshots.packs import ChunkPlace, Pack, PackReader, pack_key
from handiwork.sandboxes.snapshots.sealing import DamagedError, Keys, compressed
from handiwork.testing.blobs import FakeBlobs

ID = b"i" * 16
KEYS = Keys(b"k" * 32)


@pytest.fixture
def kept():
    """Two chunks in one pack, and a reader of it."""
    pack, places = Pack(KEYS, ID), []
    for content in (b"first" * 50, b"second" * 50):
        name = KEYS.name(content)
        offset, stored = pack.add(name, compressed(content))
        places.append(ChunkPlace(name, 0, offset, stored, len(content)))
    blobs = FakeBlobs()
    blobs.put(pack_key("t", ID), pack.data())
    return blobs, PackReader(blobs, KEYS, "t"), places


def test_chunks_come_back_and_a_pack_is_fetched_once(kept):
    blobs, reader, places = kept
    assert reader.chunk(ID, places[1], str) == b"second" * 50
    assert reader.chunk(ID, places[0], str) == b"first" * 50
    assert [verb for verb, _ in blobs.asked].count("get") == 1


def test_one_chunk_is_not_taken_for_another(kept):
    _, reader, (first, second) = kept
    swapped = ChunkPlace(first.name, 0, second.offset, second.stored, second.size)
    with pytest.raises(DamagedError, match="its use"):
        reader.chunk(ID, swapped, lambda: "its use")


def test_a_size_that_is_not_the_content_s_is_told(kept):
    _, reader, (first, _) = kept
    for size in (first.size - 1, first.size + 1):
        wrong = ChunkPlace(first.name, 0, first.offset, first.stored, size)
        with pytest.raises(DamagedError):
            reader.chunk(ID, wrong, str)
