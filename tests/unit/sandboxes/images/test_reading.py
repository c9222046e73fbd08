"""Whole archives become trees; what does not match its digest does not."""

from contextlib import ExitStack

import pytest

from handiwork.model.errors import ConfigError
from handiwork.sandboxes.images.nodes import walk
from handiwork.sandboxes.images.reading import file_pieces, unpack
from handiwork.sandboxes.images.rules import ImageLimits
from handiwork.sandboxes.images.spool import pieces
from image_archives import Oci, directory, docker_archive, entry, sha256, tar

BELOW = tar(directory("d"), entry("d/f", b"one"), entry("d/g", b"two"))
ABOVE = tar(entry("d/.wh.g"), entry("d/f", b"three"))


def contents(data, tmp_path, **options):
    with ExitStack() as files:
        made = unpack([data], tmp_path, files, **options)
        return {
            path.decode(): b"".join(
                pieces(made.sources[node.content.source], node.content.offset, node.size)
            )
            for path, node in walk(made.root)
            if node.kind == "file"
        }


@pytest.mark.parametrize("form", ["oci", "oci plain", "docker", "tree"])
def test_every_form_gives_the_same_files(form, tmp_path):
    data = {
        "oci": lambda: Oci(BELOW, ABOVE).tar(),
        "oci plain": lambda: Oci(BELOW, ABOVE, compress=False).tar(),
        "docker": lambda: docker_archive(BELOW, ABOVE),
        "tree": lambda: tar(directory("d"), entry("d/f", b"three")),
    }[form]()
    assert contents(data, tmp_path) == {"d/f": b"three"}
    assert list(tmp_path.iterdir()) == []


def test_a_blob_that_was_changed_is_named(tmp_path):
    image = Oci(BELOW, compress=False)
    digest = next(iter(image.blobs))
    data = image.tar()
    at = data.index(image.blobs[digest])
    with pytest.raises(ConfigError, match=digest):
        contents(data[: at + 20] + bytes([data[at + 20] ^ 1]) + data[at + 21 :], tmp_path)


def test_a_config_that_was_changed_is_named(tmp_path):
    image = Oci(BELOW, config={"User": "root"})
    data = image.tar()
    assert data.count(b'"User": "root"') == 1
    with pytest.raises(ConfigError, match=image.config):
        contents(data.replace(b'"User": "root"', b'"User": "evil"'), tmp_path)


def test_a_layer_that_is_not_what_the_config_tells_is_named(tmp_path):
    image = Oci(BELOW)
    other = Oci(ABOVE)
    image.blobs |= other.blobs
    image.manifest["layers"] = [image.told(one["digest"]) for one in other.manifest["layers"]]
    with pytest.raises(ConfigError, match=sha256(BELOW)):
        contents(image.tar(), tmp_path)


def test_limits_and_files_that_are_not_there(tmp_path):
    with pytest.raises(ConfigError, match="larger than 100 bytes"):
        contents(Oci(BELOW).tar(), tmp_path, limits=ImageLimits(archive_bytes=100))
    with pytest.raises(ConfigError, match="cannot be read"):
        list(file_pieces(tmp_path / "none"))
    (tmp_path / "there").write_bytes(b"abc")
    assert list(file_pieces(tmp_path / "there")) == [b"abc"]
