"""Images are found by name and by digest."""

import pytest

from handiwork.model.errors import SandboxUnavailableError, UnsupportedError
from handiwork.sandboxes.images.store import Images


async def test_the_host_image_is_found_by_name_and_by_digest(tmp_path):
    images = Images(tmp_path / "images")
    image = await images.resolve("host")
    assert image.host_usr
    assert image.roots.read_bytes()
    assert await Images(tmp_path / "images").find(image.digest) == image


async def test_what_is_not_there_is_told(tmp_path):
    images = Images(tmp_path / "images")
    with pytest.raises(UnsupportedError, match="no image 'debian'"):
        await images.resolve("debian")
    for digest in ("0" * 64, "../x", ""):
        with pytest.raises(SandboxUnavailableError, match="is not in"):
            await images.find(digest)
