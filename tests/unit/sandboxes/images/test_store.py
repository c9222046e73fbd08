"""Images are found by name and digest, made, listed and removed; what is held stays."""

import asyncio
from datetime import UTC, datetime

import pytest

from handiwork.model.errors import (
    ConfigError,
    ConflictError,
    NotFoundError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.sandboxes.images.reading import unpack
from handiwork.sandboxes.images.store import Images
from image_archives import directory, entry, tar

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ONE, TWO = (tar(directory("d"), entry("d/f", text)) for text in (b"one", b"two"))


@pytest.fixture
def images(tmp_path):
    return Images(tmp_path / "images")


async def put(images, name, data, **options):
    async def make(build):
        return await build.unpack(lambda d, files, told: unpack([data], d, files, progress=told))

    return await images.put(name, make, source="tree", now=NOW, **options)


async def test_the_host_image_is_found_by_name_and_by_digest(images, tmp_path):
    image = await images.resolve("host")
    assert image.host_usr
    assert image.roots.read_bytes()
    again = Images(tmp_path / "images")
    assert await again.find(image.digest) == await again.resolve(image.digest) == image
    assert images.info("host").names == ("host",)
    with pytest.raises(ConflictError, match="this host's own"):
        await images.remove(image.digest)


async def test_what_is_not_there_is_told(images):
    with pytest.raises(UnsupportedError, match="no image 'debian'"):
        await images.resolve("debian")
    for digest in ("0" * 64, "../x", ""):
        with pytest.raises(SandboxUnavailableError, match="is not in"):
            await images.find(digest)
    with pytest.raises(NotFoundError):
        images.info("debian")
    with pytest.raises(NotFoundError):
        await images.remove("debian")


async def test_an_image_is_made_and_named_by_what_it_holds(images):
    told = []
    made = await put(images, "mine", ONE, progress=lambda *each: told.append(each[0]))
    image = await images.resolve("mine")
    assert (image.tree / "d/f").read_bytes() == b"one"
    assert (made.names, made.source, made.size_bytes > 3) == (("mine",), "tree", True)
    assert {"reading", "writing"} <= set(told)
    same = await put(images, "same", ONE)
    assert (same.digest, same.names) == (made.digest, ("mine", "same"))
    assert len(images.list()) == 1


async def test_a_name_moves_on_and_the_old_image_stays(images, tmp_path):
    first = await put(images, "mine", ONE)
    second = await put(images, "mine", TWO)
    assert (await images.resolve("mine")).digest == second.digest
    assert (await images.find(first.digest)).digest == first.digest
    assert [one.names for one in images.list()] == [("mine",), ()]
    assert [one.digest for one in Images(tmp_path / "images").list()] == [
        second.digest,
        first.digest,
    ]


async def test_it_goes_with_its_last_name_unless_it_is_held(images, tmp_path):
    made = await put(images, "mine", ONE)
    await put(images, "also", ONE)
    standing = {made.digest: ["sbx_aaaaaaaa"]}
    images.held_by(lambda: standing)
    for name in ("mine", made.digest):
        with pytest.raises(ConflictError, match="sbx_aaaaaaaa"):
            await images.remove(name)
    standing.clear()
    await images.remove("mine")
    assert images.info("also").names == ("also",)
    await images.remove(made.digest)
    assert images.list() == []
    assert [entry.name for entry in (tmp_path / "images").iterdir()] == ["names.json"]


async def test_a_failed_build_leaves_nothing_and_changes_no_name(images, tmp_path):
    made = await put(images, "mine", ONE)
    before = sorted(entry.name for entry in (tmp_path / "images").iterdir())
    with pytest.raises(ConfigError, match=r"'\.\.'"):
        await put(images, "mine", tar(entry("../x")))
    assert sorted(entry.name for entry in (tmp_path / "images").iterdir()) == before
    assert images.info("mine").digest == made.digest


async def test_what_a_crash_left_is_deleted_at_the_start(images, tmp_path):
    made = await put(images, "mine", ONE)
    half = tmp_path / "images/.building-x/whole/root"
    half.mkdir(parents=True)
    (half / "f").write_text("x")
    again = Images(tmp_path / "images")
    assert not (tmp_path / "images/.building-x").exists()
    assert again.info("mine").digest == made.digest


async def test_a_long_build_holds_up_neither_sandboxes_nor_removals(images):
    await put(images, "old", TWO)
    started, free = asyncio.Event(), asyncio.Event()

    async def make(build):
        started.set()
        await free.wait()
        return await build.unpack(lambda d, files, told: unpack([ONE], d, files))

    async with asyncio.TaskGroup() as group:
        building = group.create_task(images.put("mine", make, source="tree", now=NOW))
        await started.wait()
        assert (await images.resolve("host")).host_usr
        await images.remove("old")
        free.set()
    assert building.result().names == ("mine",)


@pytest.mark.parametrize("name", ["host", "", "../x", "A", "a/b", "-x", "x" * 64])
async def test_names_are_plain(images, name):
    with pytest.raises(ConfigError):
        await put(images, name, ONE)


async def test_a_damaged_record_is_told(images, tmp_path):
    made = await put(images, "mine", ONE)
    (tmp_path / "images" / made.digest / "image.json").write_text("{")
    with pytest.raises(SandboxUnavailableError, match="damaged"):
        await images.resolve("mine")
    whole = await put(images, "other", TWO)
    assert [(one.names, bool(one.damaged)) for one in images.list()] == [
        (("mine",), True),
        (("other",), False),
    ]
    await images.remove("mine")
    assert images.list() == [whole]
    (tmp_path / "images" / ("0" * 64)).mkdir()  # whatever is left of one
    assert [bool(one.damaged) for one in images.list()] == [False, True]
    await images.remove("0" * 64)
    assert images.list() == [whole]
    (tmp_path / "images/names.json").write_text("{")
    with pytest.raises(SandboxUnavailableError, match="cannot be read"):
        await images.resolve("mine")
