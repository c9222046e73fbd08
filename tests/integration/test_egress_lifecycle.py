"""Grants and processes that change under live connections: whatever fails, nothing leaves."""

import asyncio
import os
import signal
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from egress_world import HOST, World, grant, preamble, world
from handiwork.egress.registry import EgressRegistry
from handiwork.model.egress import EgressBinding
from handiwork.model.errors import SandboxUnavailableError
from handiwork.model.policy import AllowRule, Match


@pytest.fixture
async def here(tmp_path: Path):
    async with world(tmp_path) as made:
        yield made


async def answers(here: World, way, expected: int) -> bool:
    """Try until a request gets the expected status, or not at all for 0."""
    for _ in range(100):
        status = 0
        with suppress(OSError, asyncio.IncompleteReadError):
            status = (await (await here.connect(way)).request(f"https://{HOST}/"))[0]
        if status == expected:
            return True
        await asyncio.sleep(0.05)
    return False


async def closed_at_once(here: World, way, raw: bytes) -> bool:
    client = await here.connect(way)
    with suppress(ConnectionError):
        await client.send(raw)
    async with asyncio.timeout(2):
        with suppress(ConnectionError):
            assert await client.reader.read() == b""
    return True


async def test_a_killed_proxy_leaves_no_way_out_and_nothing_hangs(here: World):
    way = await here.open(grant(here.service()))
    live = await here.tls(way)
    assert (await live.request("/"))[0] == 200
    here.processes[0].kill()
    assert await live.ended()
    seen = len(here.upstream.seen)
    get = f"GET https://{HOST}/ HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()
    for raw in (preamble(1, "198.51.100.7", 443), preamble(2, "10.0.0.2", 53), get):
        assert await closed_at_once(here, way, raw)
    assert len(here.upstream.seen) == seen
    assert not here.registry.attached


async def test_a_new_proxy_takes_every_binding_up_again(here: World):
    way = await here.open(grant(here.service()))
    denied = await here.open(grant())
    gone = await here.open(grant(here.service()))
    here.processes[0].kill()
    await here.processes[0].wait()
    await here.registry.close(gone.binding.id)
    await here.registry.update(denied.binding.id, grant(here.service()))
    await here.start_proxy()
    assert await answers(here, way, 200)
    assert await answers(here, denied, 200)
    client = await here.tls(way)
    assert (await client.request("/"))[0] == 200
    assert not Path(gone.path).exists()
    await here.registry.close(way.binding.id)
    assert await client.ended()


async def test_secrets_sealed_before_open_after_a_restart(here: World):
    way = await here.open(await here.injecting())
    here.processes[0].kill()
    await here.processes[0].wait()
    await here.start_proxy()
    assert await answers(here, way, 200)
    assert here.upstream.seen[-1].values("authorization")


async def test_the_end_of_the_control_channel_ends_the_proxy(here: World):
    way = await here.open(grant(here.service()))
    live = await here.tls(way)
    here.registry.detach()
    async with asyncio.timeout(5):
        assert await here.processes[0].wait() == 0
    assert await live.ended()


async def test_sigterm_ends_the_proxy_and_keeps_its_audit(here: World):
    way = await here.open(grant(here.service()))
    assert (await (await here.tls(way)).request("/"))[0] == 200
    here.processes[0].send_signal(signal.SIGTERM)
    async with asyncio.timeout(5):
        assert await here.processes[0].wait() == 0
    assert (await here.records(1))[0].status == 200


async def test_a_proxy_that_hangs_is_let_go(tmp_path: Path):
    async with world(tmp_path) as here:
        way = await here.open(grant(here.service()))
        here.registry._reply_seconds = 0.3
        here.processes[0].send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(SandboxUnavailableError):
                await here.registry.update(way.binding.id, grant())
            assert not here.registry.attached
        finally:
            here.processes[0].send_signal(signal.SIGCONT)
        async with asyncio.timeout(5):
            await here.processes[0].wait()
        assert await closed_at_once(here, way, preamble(1, "198.51.100.7", 443))


async def test_without_a_proxy_nothing_opens(tmp_path: Path):
    made = World(tmp_path)
    async with EgressRegistry(tmp_path / "run", made.settings(), reply_seconds=0.1) as registry:
        with pytest.raises(SandboxUnavailableError, match="not running"):
            await registry.open(EgressBinding(id="egb_x", kind="sandbox", ca_id="ses_x"), grant())
        assert list((tmp_path / "run").iterdir()) == []


async def test_keys_that_cannot_be_had_stop_the_proxy_and_say_so(tmp_path: Path):
    (tmp_path / "keys").mkdir(mode=0o755)
    (tmp_path / "keys").chmod(0o755)
    made = World(tmp_path)
    made.registry = EgressRegistry(tmp_path / "run", made.settings(), reply_seconds=2.0)
    async with made.registry:
        process = await made.start_proxy()
        async with asyncio.timeout(10):
            await process.wait()
        assert not made.registry.attached


async def test_a_tool_gets_a_socket_without_a_path_for_one_call(here: World):
    binding = EgressBinding(id="egb_tool", kind="tool", tool="fetch", ca_id="ses_tool")
    async with here.registry.bind_tool(binding, grant(here.service())) as number:
        for _ in range(2):
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, f"/proc/self/fd/{number}")
            reader, writer = await asyncio.open_unix_connection(sock=sock)
            writer.write(f"GET https://{HOST}/ HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
        kept = os.dup(number)
    try:
        with pytest.raises(OSError), socket.socket(socket.AF_UNIX) as late:
            late.connect(f"/proc/self/fd/{kept}")
    finally:
        os.close(kept)
    assert (await here.records(2, tool="fetch"))[0].binding == "egb_tool"


@pytest.mark.root
async def test_another_id_connects_by_descriptor_and_not_by_path(here: World):
    way = await here.open(grant(here.service()))
    number = os.open(way.path, os.O_PATH)
    report, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.setresgid(1 << 30, 1 << 30, 1 << 30)
        os.setresuid(1 << 30, 1 << 30, 1 << 30)
        found = b""
        for path in (way.path, f"/proc/self/fd/{number}"):
            try:
                socket.socket(socket.AF_UNIX).connect(path)
                found += b"y"
            except OSError:
                found += b"n"
        os.write(told, found)
        os._exit(0)
    await asyncio.to_thread(os.waitpid, child, 0)
    os.close(number)
    assert os.read(report, 10) == b"ny"
    os.close(report)
    os.close(told)


async def test_the_proxy_is_not_dumpable(here: World):
    await here.registry.ping()
    pid = here.processes[0].pid
    assert Path(f"/proc/{pid}/mem").stat().st_uid == 0
    status = Path(f"/proc/{pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "CapBnd:\t0000000000000000" in status or os.geteuid() != 0


@pytest.mark.root
async def test_the_proxy_becomes_its_own_id():
    user = 64101
    with tempfile.TemporaryDirectory(prefix="handiwork-egress-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        for part in ("keys", "audit"):
            (directory / part).mkdir(mode=0o700)
            os.chown(directory / part, user, user)
        async with world(directory, "--user", str(user)) as here:
            client = await here.tls(await here.open(await here.injecting()))
            assert (await client.request("/"))[0] == 200
            fields = dict(
                line.split(":\t", 1)
                for line in Path(f"/proc/{here.processes[0].pid}/status").read_text().splitlines()
            )
    assert set(fields["Uid"].split()) == set(fields["Gid"].split()) == {str(user)}
    assert fields["Groups"].strip() == ""
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0


async def test_a_name_that_leads_home_is_refused_live(tmp_path: Path):
    async with world(tmp_path, hosts={HOST: ("127.0.0.1",)}) as here:
        way = await here.open(grant(AllowRule(id="all", match=Match(hosts=("*",)))))
        client = await here.tls(way)
        status, headers, _ = await client.request("/")
        assert (status, headers["x-handiwork-rule"]) == (403, "address-guard")
