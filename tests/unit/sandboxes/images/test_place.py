"""An image is whole, or it is not there."""

from handiwork.sandboxes.images.place import image_at

DIGEST = "a" * 64


def test_an_image_is_what_lies_at_its_digest(tmp_path):
    place = tmp_path / DIGEST
    (place / "root").mkdir(parents=True)
    (place / "image.json").write_text('{"source": "host", "host_usr": true}')
    image = image_at(tmp_path, DIGEST)
    assert (image.tree, image.erofs, image.host_usr) == (place / "root", None, True)
    (place / "image.erofs").write_text("x")
    assert image_at(tmp_path, DIGEST).erofs == place / "image.erofs"


def test_what_is_no_digest_names_nothing(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "image.json").write_text("{}")
    for digest in (".", "", "..", DIGEST, DIGEST.upper()):
        assert image_at(tmp_path, digest) is None
