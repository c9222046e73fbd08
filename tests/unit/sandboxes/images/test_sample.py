"""A small image of this host's programs: whole, made once, and of nothing but what is named."""

import subprocess

import pytest

from handiwork.model.errors import SandboxUnavailableError, UnsupportedError
from handiwork.sandboxes.images import sample
from handiwork.sandboxes.images.sample import SampleImages

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(sample, "PROGRAMS", ("sh", "tar", "no-such-program"))


def said_by(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@pytest.mark.usefixtures("few")
async def test_it_holds_programs_that_run(tmp_path):
    image = await SampleImages(tmp_path).resolve("any")
    assert image.erofs.is_file()
    assert image.roots.is_file()
    assert (image.tree / "usr/bin/sh").is_file()
    assert not (image.tree / "usr/bin/cat").exists()
    assert not (image.tree / "etc/shadow").exists()
    program = image.tree / "usr/bin/tar"
    told = said_by("ldd", program)
    libraries = [line.split("=> ")[1].split()[0] for line in told.splitlines() if "=> /" in line]
    assert libraries
    for library in libraries:
        assert (image.tree / library.lstrip("/")).exists()
    asked = "import sys; sys.path[:] = sys.argv[1:]; import ctypes; print(ctypes.__file__)"
    library = next((image.tree / "usr/lib").glob("python3.*"))
    argv = ["/usr/bin/python3", "-c", asked, library, library / "lib-dynload"]
    assert said_by(*argv).startswith(str(library))


@pytest.mark.usefixtures("few")
async def test_it_is_made_once(tmp_path, monkeypatch):
    first = await SampleImages(tmp_path).resolve("one")

    async def again(_directory):
        raise AssertionError("it was made again")

    monkeypatch.setattr(sample, "_make", again)
    images = SampleImages(tmp_path)
    assert await images.resolve("another") == first
    assert await images.find(first.digest) == first
    with pytest.raises(SandboxUnavailableError, match="is not in"):
        await images.find("0" * 64)


async def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "PYTHON", tmp_path / "python3")
    with pytest.raises(UnsupportedError, match=r"there is no .*python3 here"):
        await SampleImages(tmp_path / "image").resolve("any")
