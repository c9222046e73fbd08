"""A build is whole, or it leaves nothing."""

import asyncio
import threading
from datetime import UTC, datetime

import pytest

from handiwork.sandboxes.images.building import Build, GivenUp, usable_env
from handiwork.sandboxes.images.place import image_at, record_at
from handiwork.sandboxes.images.reading import unpack
from handiwork.sandboxes.images.writing import silent
from image_archives import Oci, entry, tar

NOW = datetime(2026, 1, 2, tzinfo=UTC)


async def test_a_build_is_moved_into_place_and_leaves_nothing(tmp_path):
    data = Oci(tar(entry("etc/ssl/certs/ca-certificates.crt", b"ROOTS"))).tar()
    build = Build(tmp_path / "images", silent)
    made = await build.unpack(lambda d, files, told: unpack([data], d, files, progress=told))
    digest = await build.finish(made, "oci", NOW)
    build.close()
    assert [entry.name for entry in (tmp_path / "images").iterdir()] == [digest]
    assert image_at(tmp_path / "images", digest).roots.read_bytes() == b"ROOTS"
    assert record_at(tmp_path / "images", digest).created_at == NOW
    assert (tmp_path / "images").stat().st_mode & 0o777 == 0o700


async def test_a_cancelled_build_is_given_up_and_waited_for(tmp_path):
    build = Build(tmp_path, silent)
    started, ended = threading.Event(), threading.Event()

    def work():
        started.set()
        try:
            while True:
                build.progress("working", 0, 0)
        except GivenUp:
            ended.set()
            raise

    task = asyncio.ensure_future(build.thread(work))
    await asyncio.to_thread(started.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    build.close()
    assert list(tmp_path.iterdir()) == []


def test_variables_are_bounded_and_none_is_a_brains():
    env = {"PATH": "/a", "ANTHROPIC_API_KEY": "x", "": "y", "Z": "\0", "BIG": "x" * 70_000}
    assert usable_env(env) == {"PATH": "/a"}
    assert len(usable_env({f"V{n}": "" for n in range(999)})) <= 256
