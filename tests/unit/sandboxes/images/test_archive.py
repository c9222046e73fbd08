"""OCI layouts and docker archives: what they say is followed only where it is right."""

import json

import pytest

from handiwork.model.errors import ConfigError
from handiwork.sandboxes.images import archive
from handiwork.sandboxes.images.rules import ImageLimits
from handiwork.sandboxes.images.tars import members
from image_archives import Oci, docker_archive, entry, hard, link, sha256, tar

LIMITS = ImageLimits()
LAYER = tar(entry("a", b"1"))


def find(data, limits=LIMITS):
    def read(at, size):
        return data[at : at + size]

    names = archive.files(members(read, len(data), limits), limits)
    return archive.find(names, lambda blob: read(blob.offset, blob.size), limits)


def test_an_oci_layout():
    found = find(Oci(LAYER, tar(), config={"Env": ["A=b=c", "odd"], "User": "7"}).tar())
    assert (found.kind, len(found.layers), found.env, found.user) == ("oci", 2, {"A": "b=c"}, "7")
    assert found.layers[0].diff_sha256 == sha256(LAYER).removeprefix("sha256:")
    assert found.layers[0].blob.sha256


def test_a_docker_archive():
    found = find(docker_archive(LAYER, config={"WorkingDir": "/srv"}))
    assert (found.kind, found.workdir, found.layers[0].blob.sha256) == ("docker", "/srv", "")


def test_layers_that_are_links_to_others():
    """Older engines save a layer that two images share once."""
    config = json.dumps({"rootfs": {"diff_ids": [sha256(LAYER)] * 2}}).encode()
    listed = [{"Config": "c.json", "Layers": ["one/layer.tar", "two/layer.tar"]}]
    data = tar(
        entry("c.json", config),
        entry("one/layer.tar", LAYER),
        link("two/layer.tar", "../one/layer.tar"),
        hard("three", "one/layer.tar"),
        entry("manifest.json", json.dumps(listed).encode()),
    )
    layers = find(data).layers
    assert layers[0].blob == layers[1].blob


def test_anything_else_is_a_root_directory():
    assert (
        find(
            tar(entry("etc/passwd", b"x"), entry("n\udcff".encode("utf-8", "replace").decode()))
        ).kind
        == "tree"
    )


def test_the_one_image_for_this_machine_is_taken():
    image = Oci(LAYER)
    image.platforms = [
        {"architecture": "riscv64", "os": "linux"},
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "amd64", "os": "windows"},
    ]
    assert find(image.tar()).kind == "oci"
    image.platforms = [None, None]
    with pytest.raises(ConfigError, match="2 images for linux"):
        find(image.tar())
    image.platforms = image.platforms[:0]
    with pytest.raises(ConfigError, match="0 images"):
        find(image.tar())


def test_an_index_of_indexes_ends():
    image = Oci(LAYER)
    kind = "application/vnd.oci.image.index.v1+json"
    inner = image.add({"manifests": [image.told(image.add(image.manifest))]})
    image.manifest = {"manifests": [image.told(inner, mediaType=kind)]}
    data = image.tar().replace(b"image.manifest.v1+json", b"image.index.v1+json\0\0\0")
    with pytest.raises(ConfigError):
        find(data)
    for _ in range(5):
        inner = image.add({"manifests": [image.told(inner, mediaType=kind)]})
    image.manifest = image.blobs[inner]
    index = {"manifests": [image.told(inner, mediaType=kind)]}
    blobs = [entry(f"blobs/sha256/{d[7:]}", b) for d, b in image.blobs.items()]
    deep = tar(entry("oci-layout"), entry("index.json", json.dumps(index).encode()), *blobs)
    with pytest.raises(ConfigError, match="too many others"):
        find(deep)


def spoiled(**changes):
    image = Oci(LAYER)
    for key, value in changes.items():
        image.manifest[key] = value
    return image.tar()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: spoiled(layers=[]), "0 layers, but tells of 1"),
        (lambda: spoiled(layers=[{"digest": "sha256:" + "0" * 64, "size": 1}]), "lacks"),
        (lambda: spoiled(layers=[{"digest": "sha256:../../etc/passwd", "size": 1}]), "not what"),
        (lambda: spoiled(layers=[{"digest": "md5:x", "size": 1}]), "not what"),
        (lambda: spoiled(layers=[{"digest": sha256(b""), "size": 0}]), "lacks"),
        (lambda: spoiled(config="x"), "not what"),
        (lambda: tar(entry("oci-layout"), entry("index.json", b"{")), "index.json is not what"),
        (lambda: tar(entry("oci-layout"), entry("index.json", b"[" * 9000)), "not what"),
        (lambda: tar(entry("manifest.json", b"[]")), "0 images"),
        (
            lambda: tar(entry("manifest.json", b'[{"Config":"../x","Layers":[]}]')),
            "lacks '../x'",
        ),
    ],
)
def test_a_fault_is_named(make, said):
    with pytest.raises(ConfigError, match=said):
        find(make())


def test_a_size_that_does_not_fit_and_a_document_that_is_too_long():
    image = Oci(LAYER)
    image.manifest["layers"][0]["size"] += 1
    with pytest.raises(ConfigError, match="is told to have"):
        find(image.tar())
    with pytest.raises(ConfigError, match="larger than 10 bytes"):
        find(Oci(LAYER).tar(), ImageLimits(document_bytes=10))
