"""What is said before the channel serves: that one stands, and for whom it is."""

import asyncio
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handiwork.model.errors import ConfigError, SandboxUnavailableError
from handiwork.model.sandbox import SandboxExit, SandboxSpec
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.launched import CLAIM, STANDS, Entry, Launched, write_bundle
from handiwork.sandboxes.layers import Layers, Lent
from handiwork.sandboxes.stacks import Stack
from handiwork.sandboxes.states import Meta, Staged


class Process:
    """A launcher that ends when it is told."""

    def __init__(self):
        self.exited = asyncio.get_running_loop().create_future()
        self.stopped = 0

    async def stop(self):
        self.stopped += 1


def on(disk):
    return Stack(disk, Lent(Layers(Path("/nowhere"))))


def ahead_at(path):
    meta = Meta(id=".pool-0", id_base=0, image="", created=datetime(2026, 1, 1, tzinfo=UTC))
    return Staged(path, meta)


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def way_out(tmp_path):
    path = tmp_path / "exit.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        yield SandboxExit(socket_path=str(path), ca_certificate="OURS\n")


async def test_it_stands_when_it_says_so(ends):
    ours, theirs = ends
    theirs.send(STANDS)
    await Launched(Process(), ours, on(None), "pool-0").stands_within(5)


@pytest.mark.parametrize("said", [b"\2", b"", None])
async def test_what_ends_or_says_something_else_does_not_stand(ends, said):
    ours, theirs = ends
    if said is not None:
        theirs.sendall(said)
        theirs.close()
    with pytest.raises(SandboxUnavailableError):
        await Launched(Process(), ours, on(None), "pool-0").stands_within(5 if said else 0.05)


async def test_a_claim_gives_trust_name_and_exit(ends, way_out, tmp_path):
    ours, theirs = ends
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(b"ROOTS\n")
    spec = SandboxSpec(id="sbx_aaaaaaaa", exit=way_out, hostname="mine")
    Entry(Launched(Process(), ours, on(None), "pool-0"), ahead_at(tmp_path), None).claim(spec)
    assert bundle.read_bytes() == b"ROOTS\nOURS\n"
    message, descriptors, _, _ = socket.recv_fds(theirs, 99, 4)
    assert message == CLAIM + b"mine" + bytes(60)
    (found,) = descriptors
    try:
        assert os.fstat(found).st_ino == Path(way_out.socket_path).stat().st_ino
        with pytest.raises(OSError):  # only to be connected to by who holds it, not read
            os.read(found, 1)
    finally:
        os.close(found)


async def test_a_claim_that_cannot_be_kept_is_refused(ends, way_out, tmp_path):
    entry = Entry(Launched(Process(), ends[0], on(None), "pool-0"), ahead_at(tmp_path), None)
    for spec in (
        SandboxSpec(id="sbx_aaaaaaaa"),
        SandboxSpec(id="sbx_aaaaaaaa", exit=way_out, hostname="n" * 65),
    ):
        with pytest.raises(ConfigError, match="a claim needs"):
            entry.claim(spec)
    gone = SandboxExit(socket_path=str(tmp_path / "gone"), ca_certificate="")
    with pytest.raises(SandboxUnavailableError, match="could not be claimed"):
        entry.claim(SandboxSpec(id="sbx_aaaaaaaa", exit=gone))
    assert list(tmp_path.iterdir()) == [Path(way_out.socket_path)]  # nothing was written


async def test_its_end_is_that_of_its_processes_and_of_what_it_left(ends):
    forgotten = []

    async def forget(ahead, leaf):
        forgotten.append((ahead, leaf))

    process, disk = Process(), os.open("/dev/null", os.O_RDONLY)
    ahead = ahead_at(Path("/none"))
    entry = Entry(Launched(process, ends[0], on(disk), "pool-0"), ahead, forget)
    assert entry.stands
    await entry.end()
    assert (process.stopped, forgotten) == (1, [(ahead, "pool-0")])
    assert ends[1].recv(1) == b""
    with pytest.raises(OSError):
        os.fstat(disk)
    process.exited.set_result(0)
    assert not entry.stands


def test_a_bundle_is_the_images_roots_and_more(tmp_path):
    roots = tmp_path / "roots.pem"
    roots.write_bytes(b"ROOTS\n\n")
    write_bundle(tmp_path / "bundle.pem", Image(digest="d", tree=tmp_path, roots=roots), "OURS\n")
    assert (tmp_path / "bundle.pem").read_bytes() == b"ROOTS\nOURS\n"
    assert (tmp_path / "bundle.pem").stat().st_mode & 0o777 == 0o644
