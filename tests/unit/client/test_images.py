"""Images by the client: files and directories are sent, progress is told, errors are of the tree."""

from pathlib import Path

import pytest

from handiwork import Handiwork
from handiwork.model.errors import ConfigError, NotFoundError, UnsupportedError
from image_archives import Oci, entry, tar


async def test_a_file_and_a_directory_give_the_same_image(hw: Handiwork, tmp_path: Path) -> None:
    image = Oci(tar(entry("etc/told", b"by me" * 1000)))
    data = image.tar()
    (tmp_path / "image.tar").write_bytes(data)
    stages: list[str] = []
    made = await hw.images.import_archive(
        "mine", tmp_path / "image.tar", told=lambda progress: stages.append(progress.stage)
    )
    assert stages[0] == "sending"
    layout = tmp_path / "layout"
    (layout / "blobs/sha256").mkdir(parents=True)
    for digest, blob in image.blobs.items():
        (layout / "blobs/sha256" / digest[7:]).write_bytes(blob)
    for name in ("oci-layout", "index.json"):
        at = data.index(name.encode() + b"\0")
        size = int(data[at + 124 : at + 135], 8)
        (layout / name).write_bytes(data[at + 512 : at + 512 + size])
    same = await hw.images.import_archive("same", layout)
    assert (same.digest, same.names) == (made.digest, ("mine", "same"))
    assert await hw.images.get("mine") == same
    assert same in await hw.images.list()
    await hw.images.remove(same.digest)
    with pytest.raises(NotFoundError):
        await hw.images.get("mine")


async def test_errors_are_those_of_the_tree(hw: Handiwork, tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"no archive at all" * 100)
    with pytest.raises(ConfigError, match=r"checksum|malformed"):
        await hw.images.import_archive("mine", tmp_path / "bad.tar")
    with pytest.raises(ConfigError, match="cannot be read"):
        await hw.images.import_archive("mine", tmp_path / "none")
    with pytest.raises(ConfigError, match="suite"):
        await hw.images.build_recipe("mine", b'suite = "../x"')
    (tmp_path / "context").mkdir()
    with pytest.raises((ConfigError, UnsupportedError), match="Dockerfile"):
        await hw.images.build_dockerfile("mine", tmp_path / "context")
