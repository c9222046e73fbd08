"""Which kernels mount a file, and what a launcher that fails says."""

from pathlib import Path

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.images.mounted import Mounts, can_mount_files


@pytest.mark.parametrize(
    ("release", "can"),
    [("6.15.0", True), ("6.18.44-x", True), ("7.0-rc1", True), ("6.14.9", False), ("odd", False)],
)
def test_kernels(release, can):
    assert can_mount_files(release) is can


async def test_why_it_could_not_be_mounted_is_told(tmp_path):
    agent = tmp_path / "agent"
    agent.write_text("#!/bin/sh\necho 'handiwork-guest: erofs: No such device' >&2\nexit 125\n")
    agent.chmod(0o755)
    image = Image(digest="a" * 64, tree=Path("/x"), erofs=Path("/x.erofs"), roots=Path("/r"))
    mounts = Mounts()
    with pytest.raises(SandboxUnavailableError, match="No such device"):
        await mounts.get(image, agent)
    mounts.forget(image.digest)
