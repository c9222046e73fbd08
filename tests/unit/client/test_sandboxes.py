"""Sandboxes through the client."""

import asyncio
import errno
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api_stand_in import PretendSandbox, Served
from handiwork import Handiwork
from handiwork.client import sandboxes
from handiwork.model.errors import (
    ConfigError,
    ConflictError,
    GuestError,
    HandiworkError,
    NotFoundError,
)
from handiwork.model.sandbox import FileKind, SandboxState


def only(served: Served) -> PretendSandbox:
    [sandbox] = served.sandboxes.live.values()
    return sandbox


async def test_a_context_closes_it(served: Served, hw: Handiwork) -> None:
    async with await hw.sandboxes.create(env={"A": "1"}, metadata={"m": "2"}) as box:
        assert box.record.env == {"A": "1"}
        assert (await hw.sandboxes.get(box.id)).record == box.record
        assert [one.id for one in await hw.sandboxes.list()] == [box.id]
    [gone] = await hw.sandboxes.list(include_gone=True)
    assert gone.record.state is SandboxState.GONE


async def test_errors_of_the_tree(hw: Handiwork) -> None:
    with pytest.raises(NotFoundError, match="sbx_none"):
        await hw.sandboxes.get("sbx_none")
    with pytest.raises(ConfigError, match="tier"):
        await hw.sandboxes.create(tier="docker")
    box = await hw.sandboxes.create()
    await box.sleep()
    assert box.record.state is SandboxState.SLEEPING
    with pytest.raises(ConflictError, match="sleeping"):
        await box.exec(["echo"])
    await box.wake()
    assert (await box.refresh()).state is SandboxState.RUNNING


async def test_exec(served: Served, hw: Handiwork) -> None:
    box = await hw.sandboxes.create()
    result = await box.exec(["cat"], stdin=b"\x00\xff", cwd="/tmp", user="agent", env={"A": "b"})
    assert (result.exit_code, result.stdout) == (0, b"\x00\xff")
    assert (await box.exec(["false"])).exit_code == 1
    await box.exec("echo $HOME", timeout_seconds=3)
    cat, _, shell = only(served).requests
    assert (cat.cwd, cat.user, cat.env, cat.timeout_seconds) == ("/tmp", "agent", {"A": "b"}, 120)
    assert (shell.argv, shell.timeout_seconds) == (("/bin/sh", "-c", "echo $HOME"), 3)


async def test_a_command_must_be_one(hw: Handiwork) -> None:
    box = await hw.sandboxes.create()
    for command in ([], [7]):
        with pytest.raises(ConfigError):
            await box.exec(command)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await box.exec(["ls"], timeout=3)  # type: ignore[call-arg]


async def test_exec_stream(hw: Handiwork) -> None:
    box = await hw.sandboxes.create()
    async with box.exec_stream(["echo", "a", "b"]) as process:
        pieces = [piece async for piece in process.output()]
        result = await process.wait()
    assert pieces == [("stdout", b"a"), ("stdout", b"b"), ("stderr", b"done")]
    assert result.exit_code == 0
    async with box.exec_stream(["cat"], stdin="hello") as process:
        assert [piece async for piece in process.output()] == [("stdout", b"hello")]


async def test_leaving_a_stream_kills_the_command(served: Served, hw: Handiwork) -> None:
    box = await hw.sandboxes.create()
    async with box.exec_stream(["sleep"]) as process:
        async for _piece in process.output():
            break
    async with asyncio.timeout(5):
        while not only(served).signals:  # noqa: ASYNC110  the server's side
            await asyncio.sleep(0.01)
    assert only(served).signals == [signal.SIGKILL]


async def test_files(hw: Handiwork) -> None:
    box = await hw.sandboxes.create()
    await box.files.write("/workspace/a/x y?&#.txt", b"\x00\xff" * 10, mode=0o755)
    assert await box.files.read("/workspace/a/x y?&#.txt") == b"\x00\xff" * 10
    assert await box.files.read("/workspace/a/x y?&#.txt", offset=19, limit_bytes=5) == b"\xff"
    [entry] = await box.files.list("/workspace/a")
    assert (entry.name, entry.kind, entry.mode) == ("x y?&#.txt", FileKind.FILE, 0o755)
    await box.files.mkdir("/workspace/b/c")
    assert (await box.files.stat("/workspace/b/c")).kind is FileKind.DIRECTORY
    await box.files.write("/workspace/t", "text ü")
    await box.files.move("/workspace/t", "/workspace/u")
    await box.files.remove("/workspace/u")
    with pytest.raises(GuestError, match="no such file") as told:
        await box.files.read("/workspace/u")
    assert told.value.errno == 2


async def test_files_as_streams(
    served: Served, hw: Handiwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandboxes, "MAX_FILE_BYTES", 1 << 20)
    box = await hw.sandboxes.create()

    async def pieces(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 1000
        if count == 3:
            raise ValueError("no more of it")

    await box.files.write_stream("/workspace/flow", pieces(500), mode=0o700)
    assert (await box.files.stat("/workspace/flow")).mode == 0o700
    async with box.files.read_stream("/workspace/flow", offset=10, limit_bytes=99) as part:
        assert b"".join([piece async for piece in part]) == b"x" * 99
    with pytest.raises(ValueError, match="no more"):
        await box.files.write_stream("/workspace/broken", pieces(3))
    with pytest.raises(HandiworkError):
        async with box.files.read_stream("/torn") as torn:
            assert [piece async for piece in torn]
    with pytest.raises(GuestError, match="read_stream") as told:
        await box.files.read("/endless")
    assert told.value.errno == errno.EFBIG
    assert "/workspace/broken" not in only(served).files.content


async def test_directories_there_and_back(hw: Handiwork) -> None:
    box = await hw.sandboxes.create()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source", Path(folder) / "target"
        (source / "sub/empty").mkdir(parents=True)
        (source / "sub/run.sh").write_bytes(b"#!/bin/sh\n")
        (source / "sub/run.sh").chmod(0o755)
        (source / "data").write_bytes(bytes(range(256)))
        (source / "link").symlink_to("/etc/passwd")
        sent = await box.files.upload_dir(source, "/workspace/in")
        assert (sent.files, sent.bytes) == (2, 266)
        assert sent.skipped == (str(source / "link"),)
        received = await box.files.download_dir("/workspace/in", target)
        assert (received.files, received.bytes, received.skipped) == (2, 266, ())
        assert (target / "data").read_bytes() == bytes(range(256))
        assert (target / "sub/run.sh").stat().st_mode & 0o777 == 0o755
        assert (target / "sub/empty").is_dir()
