"""The way out of a machine: every flow arrives at the sandbox's own socket, through one port."""

import asyncio
import ipaddress
import struct
from pathlib import Path

import pytest

from egress_world import HOST, SECRET
from egress_world import world as proxy_world
from handiwork.model.sandbox import ExecRequest, SandboxExit
from microvm_world import make_driver, needs_kernel, spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), needs_kernel]
HEAD = struct.Struct("!4sBBH16s")
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nEXIT\n-----END CERTIFICATE-----\n"
CONNECT = (
    "import socket, sys\n"
    "c = socket.create_connection(('192.0.2.7', 8080), 60); c.sendall(b'ping'); c.shutdown(1)\n"
    "print(c.makefile('rb').read())\n"
)
LARGE = (
    "import socket, threading\n"
    "def one(n):\n"
    "    c = socket.create_connection(('192.0.2.9', 9000 + n), 100)\n"
    "    def send():\n"
    "        c.sendall(bytes([65 + n]) * 700_000); c.shutdown(1)\n"
    "    t = threading.Thread(target=send); t.start()\n"
    "    got = c.makefile('rb').read(); t.join()\n"
    "    print(n, len(got), got[4:].count(65 + n), flush=True)\n"
    "ts = [threading.Thread(target=one, args=(n,)) for n in range(4)]\n"
    "[t.start() for t in ts]; [t.join() for t in ts]\n"
)
BURSTS = (
    "import socket\n"
    "for n in range(12):\n"
    "    cs = [socket.socket() for _ in range(9)]\n"
    "    for c in cs: c.setblocking(False); c.connect_ex(('192.0.2.7', 8080))\n"
    "    for c in cs: c.settimeout(60); assert c.recv(4)\n"
    "    for c in cs[n % 3 :]: c.close()\n"
    "print('well')\n"
)


class Exit:
    """Answers each flow with what it sent, or refuses it."""

    def __init__(self, path):
        self.path = path
        self.seen = []
        self.verdict = b"\0"

    async def __aenter__(self):
        self.server = await asyncio.start_unix_server(self._serve, self.path)
        Path(self.path).chmod(0o666)
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def _serve(self, reader, writer):
        magic, kind, _, port, address = HEAD.unpack(await reader.readexactly(HEAD.size))
        assert magic == b"HWX1"
        self.seen.append((kind, port, str(ipaddress.ip_address(address[:4]))))
        writer.write(self.verdict)
        if self.verdict == b"\0":
            writer.write(b"got ")
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("microvm")


@pytest.fixture
async def world(tmp_path, directory):
    driver = make_driver(directory)
    path = str(tmp_path / "exit.sock")
    async with Exit(path) as found:
        asked = spec("sbx_exitaaaa", exit=SandboxExit(socket_path=path, ca_certificate=CERTIFICATE))
        try:
            yield driver, await driver.create(asked), found, asked
        finally:
            await driver.destroy(asked.id)


def python(script):
    return ExecRequest(argv=("python3", "-c", script), cwd="/", timeout_seconds=120)


async def test_flows_arrive_are_refused_and_fail(world):
    _, box, found, _ = world
    result = await box.exec(python(CONNECT))
    assert result.stdout == b"b'got ping'\n", result.stderr
    assert found.seen == [(1, 8080, "192.0.2.7")]
    found.verdict = b"\1"
    refused = await box.exec(python(CONNECT))
    assert (refused.exit_code, len(found.seen)) == (1, 2)
    name = (
        "import socket\ntry: socket.getaddrinfo('example.com', 80)\nexcept OSError as e: print(e)"
    )
    assert b"fail" in (await box.exec(python(name))).stdout
    assert {kind for kind, _, _ in found.seen} == {1, 2}
    found.verdict = b"\0"
    found.server.close()
    Path(found.path).unlink()
    gone = await box.exec(python(CONNECT))
    assert gone.exit_code == 1
    assert b"Error" in gone.stderr
    text = await box.files.read("/etc/ssl/certs/ca-certificates.crt")
    assert text.decode().endswith(CERTIFICATE)


async def test_many_bytes_both_ways_at_once(world):
    _, box, found, _ = world
    result = await box.exec(python(LARGE))
    told = sorted(result.stdout.decode().split("\n")[:-1])
    assert told == [f"{n} 700004 700000" for n in range(4)], result.stderr
    assert len(found.seen) == 4


async def test_flows_that_begin_at_once_break_nothing(world):
    _, box, found, _ = world
    result = await box.exec(python(BURSTS))
    assert result.stdout == b"well\n", result
    assert len(found.seen) == 12 * 9


async def test_flows_end_with_sleep_and_can_be_made_after_it(world):
    driver, box, found, asked = world
    waits = (
        "import socket\n"
        "c = socket.create_connection(('192.0.2.7', 8080), 60)\n"
        "c.recv(4); open('/tmp/open', 'w').close()\n"
        "try: d = c.recv(1)\nexcept OSError as e: d = type(e).__name__\n"
        "open('/tmp/ended', 'w').write(repr(d))\n"
    )
    await box.files.write("/tmp/waits.py", waits.encode())
    shell = "python3 /tmp/waits.py >/dev/null 2>&1 & while ! test -e /tmp/open; do sleep 0.1; done"
    await box.exec(ExecRequest(argv=("sh", "-c", shell), cwd="/"))
    await driver.sleep(asked.id)
    woken = await driver.restore(asked)
    ended = "while ! test -s /tmp/ended; do sleep 0.1; done; cat /tmp/ended"
    result = await woken.exec(ExecRequest(argv=("sh", "-c", ended), cwd="/"))
    assert result.stdout in (b"'ConnectionResetError'", b"b''")
    assert (await woken.exec(python(CONNECT))).stdout == b"b'got ping'\n"
    assert len(found.seen) == 2


async def test_a_real_proxy_lets_out_what_policy_allows(tmp_path, directory):
    """curl in a machine, through the proxy's own process: 200 and the secret injected, or 403."""
    curl = "curl -sS -m 100 -o /dev/null -w %{http_code}"
    async with proxy_world(tmp_path) as here:
        way = await here.open(await here.injecting(methods=("GET",), paths=("/ok",)))
        driver = make_driver(directory)
        asked = spec(
            "sbx_exitbbbb",
            exit=SandboxExit(socket_path=way.path, ca_certificate=way.ca_certificate),
        )
        try:
            box = await driver.create(asked)
            told = []
            for path in ("ok", "admin"):
                script = f"{curl} https://{HOST}/{path}"
                request = ExecRequest(argv=("sh", "-c", script), cwd="/", timeout_seconds=120)
                told.append(await box.exec(request))
            assert [one.stdout for one in told] == [b"200", b"403"], told
            assert [seen.target for seen in here.upstream.seen] == ["/ok"]
            assert here.upstream.seen[0].values("authorization") == [f"Bearer {SECRET}"]
        finally:
            await driver.destroy(asked.id)
