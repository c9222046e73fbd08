"""What a tree of files weighs: blocks and inodes, each once, whatever is linked, and no further than its limit."""

import ctypes
import os
import resource
import subprocess
from pathlib import Path

import pytest

from handiwork.sandboxes.trees import remove_tree

GUEST = Path(__file__).parents[3] / "guest"
PLENTY = (1 << 40, 1 << 20)


class Weight(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint64), ("files", ctypes.c_uint64))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    target = tmp_path_factory.mktemp("weigh") / "weigh.so"
    flags = ["-std=gnu11", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *flags, "-o", target, GUEST / "weigh.c"], check=True)
    found = ctypes.CDLL(str(target))
    found.weigh.restype = ctypes.c_bool
    return found


@pytest.fixture
def weigh(library, tmp_path):
    """Whether all of it was seen, its bytes and its files."""

    def run(most=PLENTY):
        found = Weight()
        directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        seen = library.weigh(directory, ctypes.byref(Weight(*most)), ctypes.byref(found))
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(directory)
        return seen, found.bytes, found.files

    return run


def blocks(*paths):
    return sum(path.lstat().st_blocks * 512 for path in paths)


def test_blocks_and_inodes_are_counted(weigh, tmp_path):
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/f").write_bytes(b"x" * 100_000)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 34)
    os.mkfifo(tmp_path / "d/e/pipe")
    (tmp_path / "out").symlink_to("/usr")
    assert weigh() == (True, blocks(*tmp_path.rglob("*")), 6)
    assert weigh()[1] < 1 << 20


def test_an_inode_of_many_names_is_one(weigh, tmp_path):
    for number in range(2000):
        (tmp_path / f"one{number}").write_bytes(b"x")
        (tmp_path / f"two{number}").hardlink_to(tmp_path / f"one{number}")
    ones = list(tmp_path.glob("one*"))
    assert weigh() == (True, blocks(*ones), len(ones))


@pytest.mark.parametrize("most", [(1 << 40, 10), (50_000, 1 << 20)])
def test_counting_ends_with_the_limit(weigh, tmp_path, most):
    for number in range(100):
        (tmp_path / str(number)).write_bytes(b"x" * 4096)
    seen, size, files = weigh(most)
    assert seen
    assert size > most[0] or files > most[1]
    assert files < 20


@pytest.fixture
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_what_is_nested_too_deep_is_not_seen(weigh, tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    for depth in range(2100):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        if depth == 2000:
            assert weigh()[0]
    os.close(here)
    assert not weigh()[0]
    before = len(list(Path("/proc/self/fd").iterdir()))
    weigh()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    remove_tree(tmp_path / "d")  # pytest cannot: it calls itself for each directory
