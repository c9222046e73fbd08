"""What is sent is kept without a name."""

from handiwork.sandboxes.images.upload import Upload


def test_all_that_came_is_given_back(tmp_path):
    upload = Upload(tmp_path / "images")
    for piece in (b"ab", b"", b"c" * 3_000_000):
        upload.take(piece)
    assert b"".join(upload.pieces()) == b"ab" + b"c" * 3_000_000
    assert b"".join(upload.pieces())[:3] == b"abc"
    assert list((tmp_path / "images").iterdir()) == []
    upload.close()
