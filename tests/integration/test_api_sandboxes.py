"""The Python client against a control plane as a user runs it: real sandboxes, store and proxy."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane_process import ControlPlane
from handiwork import Handiwork
from handiwork.client.sandboxes import Sandbox
from handiwork.model.errors import (
    ConfigError,
    ConflictError,
    GuestError,
    HandiworkError,
    NotFoundError,
    PolicyDeniedError,
    UnauthorizedError,
)
from handiwork.model.process import ProcessState
from handiwork.model.sandbox import FileKind, SandboxState
from uppers import kept_bytes

DENYING = 'name = "quiet"\n[[rules]]\nid = "no"\naction = "deny"\nmatch.hosts = ["*"]\n'


@pytest.fixture
async def hw(driven_plane: ControlPlane) -> AsyncIterator[Handiwork]:
    async with Handiwork(
        base_url=driven_plane.addresses["api"], api_key=driven_plane.admin_key
    ) as hw:
        yield hw


@pytest.fixture
async def box(hw: Handiwork) -> AsyncIterator[Sandbox]:
    async with await hw.sandboxes.create(metadata={"made": "by a test"}) as box:
        yield box


async def running(box: Sandbox, seconds: str) -> bool:
    """Whether a `sleep` of that many seconds runs inside."""
    program = "for file in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $file; echo; done 2>/dev/null"
    lines = (await box.exec(program)).stdout.decode().splitlines()
    assert lines
    return f"sleep {seconds} " in lines


async def test_commands_are_results(box: Sandbox) -> None:
    done = await box.exec("echo out; echo err >&2; exit 7")
    assert (done.exit_code, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    raw = bytes(range(256)) * 100
    assert (await box.exec(["cat"], stdin=raw)).stdout == raw
    slow = await box.exec(["sleep", "30"], timeout_seconds=0.3)
    assert slow.timed_out
    much = await box.exec("yes | head -c 100000", output_limit_bytes=1000)
    assert (len(much.stdout), much.truncated) == (1000, True)
    assert (await box.exec("echo $A", env={"A": "b"}, cwd="/tmp")).stdout == b"b\n"


async def test_a_stream_comes_as_it_is_written(box: Sandbox) -> None:
    program = "echo one; sleep 0.3; echo two >&2; exit 3"
    async with box.exec_stream(program) as process:
        pieces = [piece async for piece in process.output()]
        assert (await process.wait()).exit_code == 3
    assert pieces == [("stdout", b"one\n"), ("stderr", b"two\n")]


@pytest.mark.parametrize("way", ["stream", "call"])
async def test_a_command_does_not_outlive_its_caller(box: Sandbox, way: str) -> None:
    mark = f"9{os.getpid()}.5"
    if way == "stream":
        async with box.exec_stream(["sh", "-c", f"echo begun; sleep {mark} & wait"]) as process:
            async for _piece in process.output():
                break
            assert await running(box, mark)
    else:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await box.exec(["sleep", mark])
    async with asyncio.timeout(10):
        while await running(box, mark):  # noqa: ASYNC110  a fact inside the sandbox
            await asyncio.sleep(0.05)


async def test_files_there_and_back(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/sub/run").write_bytes(b"#!/bin/sh\necho ran\n")
    (tmp_path / "in/sub/run").chmod(0o755)
    (tmp_path / "in/data").write_bytes(os.urandom(3_000_000))
    sent = await box.files.upload_dir(tmp_path / "in", "/workspace/in")
    assert sent.files == 2
    assert (await box.exec(["/workspace/in/sub/run"])).stdout == b"ran\n"
    await box.exec("cd /workspace/in; ln -s /etc/passwd link; mkfifo pipe; printf x > 'a b?&#'")
    got = await box.files.download_dir("/workspace/in", tmp_path / "out")
    assert (got.files, set(got.skipped)) == (3, {"/workspace/in/link", "/workspace/in/pipe"})
    assert (tmp_path / "out/data").read_bytes() == (tmp_path / "in/data").read_bytes()
    assert (tmp_path / "out/a b?&#").read_bytes() == b"x"
    assert (await box.files.stat("/workspace/in/link", follow=False)).kind is FileKind.LINK
    await box.files.move("/workspace/in/data", "/workspace/data")
    await box.files.remove("/workspace/in", recursive=True)
    with pytest.raises(GuestError) as told:
        await box.files.list("/workspace/in")
    assert told.value.errno == 2


def peak_mib(plane: ControlPlane) -> int:
    status = Path(f"/proc/{plane.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


async def test_a_file_of_any_size_costs_the_control_plane_little(
    driven_plane: ControlPlane, box: Sandbox
) -> None:
    size, sent = 320 << 20, hashlib.sha256()
    before = peak_mib(driven_plane)

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(size >> 20):
            piece = number.to_bytes(4, "big") * (1 << 18)
            sent.update(piece)
            yield piece

    await box.files.write_stream("/workspace/large", pieces())
    told = await box.exec(["sha256sum", "/workspace/large"])
    assert told.stdout.split()[0].decode() == sent.hexdigest()
    got = hashlib.sha256()
    async with box.files.read_stream("/workspace/large") as received:
        async for piece in received:
            got.update(piece)
    assert got.digest() == sent.digest()
    assert peak_mib(driven_plane) - before < 64
    with pytest.raises(GuestError, match="read_stream"):
        await box.files.read("/workspace/large")

    async def torn() -> AsyncIterator[bytes]:
        yield bytes(1 << 20)
        raise ValueError

    with pytest.raises(ValueError):
        await box.files.write_stream("/workspace/torn/file", torn())
    async with asyncio.timeout(10):
        while await box.files.list("/workspace/torn"):  # noqa: ASYNC110  a fact inside the sandbox
            await asyncio.sleep(0.05)


async def test_sleep_keeps_files_and_ends_processes(box: Sandbox) -> None:
    await box.files.write("/workspace/kept", "here")
    await box.exec("(sleep 1000 >/dev/null 2>&1 &)")
    await box.sleep()
    assert (await box.refresh()).state is SandboxState.SLEEPING
    await box.wake()
    assert await box.files.read("/workspace/kept") == b"here"
    assert not await running(box, "1000")
    await box.exec("(sleep 1000 >/dev/null 2>&1 &)")
    assert await running(box, "1000")


SERVE = (
    "import http.server, sys\n"
    "s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)\n"
    "print('serving', flush=True); s.serve_forever()\n"
)


async def test_a_server_is_started_in_one_call_and_used_in_the_next(
    hw: Handiwork, box: Sandbox, driven_plane: ControlPlane
) -> None:
    other = {"base_url": driven_plane.addresses["api"], "api_key": driven_plane.admin_key}
    async with Handiwork(**other) as caller:
        mine = (await caller.sandboxes.get(box.id)).processes
        started = await mine.start(["python3", "-c", SERVE], cwd="/usr/share")
        async for frame in mine.logs(started.id, follow=True):
            assert frame.data == b"serving\n"
            break
    detail = await box.processes.get(started.id)
    (place,) = detail.listeners
    assert (detail.process.state, place.address) == (ProcessState.RUNNING, "127.0.0.1")
    async with box.connect(place.port) as connection:
        await connection.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while data := await connection.read():
            answer += data
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"Directory listing" in answer
    log = [frame async for frame in box.processes.logs(started.id, after=8)]
    assert b"GET / HTTP/1.0" in b"".join(frame.data for frame in log)
    assert [one.pid for one in (await box.ps()).processes] == [started.pid]
    await box.sleep()
    (gone,) = await box.processes.list()
    assert (gone.state, gone.exit_code) == (ProcessState.LOST, None)
    assert "ended with its sandbox" in gone.reason


async def test_a_closed_one_is_gone(hw: Handiwork) -> None:
    box = await hw.sandboxes.create()
    await box.close()
    await box.close()
    assert (await box.refresh()).state is SandboxState.GONE
    with pytest.raises((ConflictError, NotFoundError)):
        await box.exec(["true"])


async def test_what_is_refused_is_on_record(hw: Handiwork) -> None:
    await hw.policies.put_toml("quiet", DENYING)
    async with await hw.sandboxes.create(policy="quiet") as box:
        refused = await box.exec("curl -sS -m 10 https://refused.example/path?query=1")
        assert refused.exit_code != 0
        # The proxy writes its record when the answer has gone out.
        async with asyncio.timeout(10):
            records = await hw.audit.query(sandbox_id=box.id, allowed=False)
            while not records:
                await asyncio.sleep(0.05)
                records = await hw.audit.query(sandbox_id=box.id, allowed=False)
    assert {record.host for record in records} == {"refused.example"}
    assert all("query" not in record.path for record in records)
    await hw.policies.delete("quiet")


async def test_a_policy_that_wants_a_stronger_tier_is_kept_and_refuses_weaker_ones(
    hw: Handiwork,
) -> None:
    strict = DENYING.replace('"quiet"', '"strict"\nminimum_tier = "gvisor"', 1)
    await hw.policies.put_toml("strict", strict)
    assert (await hw.policies.get("strict")).minimum_tier == "gvisor"
    reason = "'namespace' is weaker than minimum_tier = 'gvisor' of the session policy 'strict'"
    with pytest.raises(PolicyDeniedError, match=reason):
        await hw.sandboxes.create(policy="strict")
    async with await hw.sandboxes.create() as box:
        await hw.policies.put_toml("strict", strict.replace("gvisor", "namespace"))
        (fork,) = await box.fork(policy="strict")
        await fork.close()
        await hw.policies.put_toml("strict", strict)
        with pytest.raises(PolicyDeniedError, match=reason):
            await box.fork(policy="strict")
    with pytest.raises(ConfigError, match="'docker' is no tier: use"):
        await hw.policies.put_toml("strict", strict.replace("gvisor", "docker"))
    await hw.policies.delete("strict")


async def test_no_policy_no_tier_no_sandbox(hw: Handiwork) -> None:
    before = len(await hw.sandboxes.list())
    with pytest.raises(HandiworkError, match="none-such"):
        await hw.sandboxes.create(policy="none-such")
    with pytest.raises(HandiworkError, match="microvm"):
        await hw.sandboxes.create(tier="microvm")
    with pytest.raises(ConfigError, match="tier"):
        await hw.sandboxes.create(tier="docker")
    made = [box for box in await hw.sandboxes.list() if box.record.state is SandboxState.RUNNING]
    assert len(made) <= before


async def test_a_secret_goes_in_and_not_out(hw: Handiwork, driven_plane: ControlPlane) -> None:
    value = "sk-integration-0123456789"
    written = await hw.secrets.put("integration", value, hosts=["api.example"])
    assert (written.name, written.version) == ("integration", 1)
    for path in driven_plane.data.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert value.encode() not in kept_bytes(path), path
    assert value not in driven_plane.log.read_text()
    await hw.secrets.delete("integration")


async def test_the_socket_needs_no_key_and_tcp_does(driven_plane: ControlPlane) -> None:
    async with Handiwork(socket=driven_plane.socket) as hw:
        await hw.sandboxes.list()
        await hw.readiness()
    async with Handiwork(base_url=driven_plane.addresses["api"], api_key="wrong") as hw:
        with pytest.raises(UnauthorizedError):
            await hw.sandboxes.list()


async def test_the_key_is_not_inside(box: Sandbox, driven_plane: ControlPlane) -> None:
    key = driven_plane.admin_key
    planted = await box.exec(["grep", "-rlsF", key, "/workspace", "/tmp"], env={"PLANTED": key})
    assert planted.exit_code == 1
    control = await box.exec("env | grep -cF $PLANTED", env={"PLANTED": key})
    assert control.stdout != b"0\n"
    seen = await box.exec(["sh", "-c", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; env"])
    assert key.encode() not in seen.stdout
