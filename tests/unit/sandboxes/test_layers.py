"""Layers: mounted once for all who use them, read only, gone with the last user."""

import os
from pathlib import Path

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes import disks
from handiwork.sandboxes.disks import Disks, make_clean, mount_disk
from handiwork.sandboxes.layers import Layers

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() == 0 and not disks.can_limit_disks(),
        reason="needs loop devices, mkfs.ext4 and Linux 6.15",
    ),
]


def devices_of(directory: Path) -> int:
    count = 0
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            count += backing.read_text().startswith(str(directory))
        except OSError:
            continue
    return count


def write(mount: int, name: str, content: bytes) -> None:
    file = os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=mount)
    os.write(file, content)
    os.close(file)


def names(directory: int) -> list[str]:
    with os.scandir(directory) as found:
        return sorted(one.name for one in found)


@pytest.fixture
async def directory(tmp_path):
    """Two layers, `one` and `two`, each with its name in a file."""
    for name in ("one", "two"):
        path = tmp_path / f"{name}.img"
        mount = await Disks(tmp_path / "disks", ready=0).take(path, 64)
        write(mount, f"upper/{name}", name.encode())
        os.close(mount)
        make_clean(path)
    return tmp_path


async def test_they_are_mounted_once_and_gone_after_the_last(directory):
    layers = Layers(directory)
    first = await layers.lend(("two", "one"))
    second = await layers.lend(("one",))
    assert [names(upper) for upper in first.uppers] == [["two"], ["one"]]
    assert devices_of(directory) == 2
    assert os.fstat(first.uppers[1]).st_dev == os.fstat(second.uppers[0]).st_dev
    with pytest.raises(OSError, match="Read-only"):
        write(first.uppers[0], "more", b"")
    first.close()
    first.close()
    assert names(second.uppers[0]) == ["one"]
    second.close()
    os.close(mount_disk(directory / "one.img"))  # waits until nobody has it
    os.close(mount_disk(directory / "two.img"))


async def test_one_that_is_not_there_lets_go_of_the_others(directory):
    layers = Layers(directory)
    with pytest.raises(SandboxUnavailableError, match="could not be mounted"):
        await layers.lend(("one", "three"))
    os.close(mount_disk(directory / "one.img"))


async def test_what_was_torn_off_is_made_clean_first(directory):
    """A disk as a power cut leaves it: its journal holds what its files do not."""
    mount = mount_disk(directory / "one.img")
    write(mount, "upper/more", b"more")
    os.sync()
    torn = directory / "torn.img"
    torn.write_bytes((directory / "one.img").read_bytes())
    os.close(mount)
    with pytest.raises(SandboxUnavailableError):
        await Layers(directory).lend(("torn",))
    make_clean(torn)
    lent = await Layers(directory).lend(("torn",))
    assert names(lent.uppers[0]) == ["more", "one"]
    lent.close()
