"""One store's folder in a sandbox: made, looked at, taken away."""

from pathlib import Path

import pytest

from handiwork.model.errors import ConflictError
from handiwork.sessions.memory.folder import MARKER, UNFIT, Folder, digest, memory_path
from host_sandbox import HostFiles

ROOT = "/mnt/memory/notes"


@pytest.fixture
def files(tmp_path: Path) -> HostFiles:
    return HostFiles(tmp_path)


@pytest.fixture
async def folder(files: HostFiles) -> Folder:
    folder = Folder(ROOT, "memstore_1", read_only=False)
    await folder.make(files, fresh=True)
    return folder


async def test_it_bears_the_marker_of_its_store(
    folder: Folder, files: HostFiles, tmp_path: Path
) -> None:
    marker = tmp_path / "mnt/memory/notes" / MARKER
    assert marker.read_text() == "version 1\nmemstore_1"
    assert (await folder.scan(files, whole=False)).marked
    assert not (await Folder(ROOT, "memstore_2", read_only=False).scan(files, whole=True)).marked
    marker.unlink()
    assert not (await folder.scan(files, whole=False)).marked


async def test_nothing_may_be_in_its_place_in_a_fresh_sandbox(
    files: HostFiles, tmp_path: Path
) -> None:
    (tmp_path / "mnt/memory/notes").mkdir(parents=True)
    (tmp_path / "mnt/memory/notes/old").write_text("x")
    folder = Folder(ROOT, "memstore_1", read_only=False)
    with pytest.raises(ConflictError, match="the image has something at /mnt/memory/notes"):
        await folder.make(files, fresh=True)
    await folder.make(files, fresh=False)
    assert not (tmp_path / "mnt/memory/notes/old").exists()


async def test_links_in_its_way_are_removed_and_not_followed(
    files: HostFiles, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/keep").write_text("x")
    (tmp_path / "mnt").mkdir()
    (tmp_path / "mnt/memory").symlink_to(tmp_path / "elsewhere")
    await Folder(ROOT, "memstore_1", read_only=False).make(files, fresh=True)
    assert (tmp_path / "elsewhere/keep").exists()
    assert not (tmp_path / "mnt/memory").is_symlink()


async def test_what_no_store_takes_has_a_fingerprint_of_its_own(
    folder: Folder, files: HostFiles, tmp_path: Path
) -> None:
    place = tmp_path / "mnt/memory/notes"
    (place / "sub").mkdir()
    (place / "sub/good").write_text("ü")
    (place / "large").write_bytes(b"x" * 102_401)
    (place / "fits").write_bytes(b"x" * 102_400)
    (place / "binary").write_bytes(b"\xff\xfe")
    (place / "link").symlink_to("/etc/passwd")
    found = (await folder.scan(files, whole=False)).files
    assert found["sub/good"] == digest("ü".encode())
    assert found["fits"] == digest(b"x" * 102_400)
    assert all(found[name].startswith(UNFIT) for name in ("large", "binary", "link"))
    assert set(found) == {"sub/good", "fits", "large", "binary", "link"}


async def test_a_file_of_the_same_size_and_time_is_read_again_only_for_a_whole_look(
    folder: Folder, files: HostFiles, tmp_path: Path
) -> None:
    import os

    path = tmp_path / "mnt/memory/notes/a"
    path.write_text("one")
    os.utime(path, ns=(7, 7))
    assert (await folder.scan(files, whole=False)).files == {"a": digest(b"one")}
    path.write_text("two")
    os.utime(path, ns=(7, 7))
    assert (await folder.scan(files, whole=False)).files == {"a": digest(b"one")}
    assert (await folder.scan(files, whole=True)).files == {"a": digest(b"two")}


async def test_a_file_is_dropped_only_as_it_was(folder: Folder, files: HostFiles) -> None:
    await folder.write(files, "a", "one")
    assert not await folder.drop(files, "a", digest(b"other"))
    assert await folder.content(files, "a") == b"one"
    assert await folder.drop(files, "a", digest(b"one"))
    assert await folder.content(files, "a") is None
    assert await folder.drop(files, "a", digest(b"one"))


async def test_read_only_files_are_so(files: HostFiles, tmp_path: Path) -> None:
    folder = Folder(ROOT, "memstore_1", read_only=True)
    await folder.make(files, fresh=True)
    await folder.write(files, "a", "one")
    assert (tmp_path / "mnt/memory/notes/a").stat().st_mode & 0o777 == 0o444


async def test_it_is_taken_away(folder: Folder, files: HostFiles, tmp_path: Path) -> None:
    await folder.write(files, "a/b", "one")
    await folder.remove(files)
    await folder.remove(files)
    assert not (tmp_path / "mnt/memory/notes").exists()


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/a/b.md", "a/b.md"),
        ("/../x", None),
        ("/a/./b", None),
        ("/a//b", None),
        ("/", None),
        ("/" + "x" * 256, None),
        ("/" + "/".join("abcdefghijklmnopqrstu"), None),
        (f"/{MARKER}", None),
        ("/a\0b", None),
    ],
)
def test_paths_of_memories(path: str, place: str | None) -> None:
    assert memory_path(path) == place
