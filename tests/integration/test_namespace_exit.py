"""The one way out: a flow arrives with its destination at the sandbox's own socket, or nowhere."""

import asyncio
import ipaddress
import struct
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handiwork.model.sandbox import ExecRequest, SandboxExit, SandboxSpec
from handiwork.sandboxes.gvisor.driver import Gvisor, find_runsc
from handiwork.sandboxes.namespace import NamespaceDriver

HEAD = struct.Struct("!4sBBH16s")
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nEXIT\n-----END CERTIFICATE-----\n"
CONNECT = (
    "import socket, sys\n"
    "c = socket.create_connection(('192.0.2.7', 8080), 5); c.sendall(b'ping'); c.shutdown(1)\n"
    "print(c.makefile('rb').read())\n"
)


class Exit:
    """Answers each flow with its own head, or refuses it."""

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
            writer.write(b"got " + await reader.read())
        writer.close()


@pytest.fixture(params=["namespace", "gvisor"])
async def world(tmp_path, request):
    runsc = find_runsc("")
    assert runsc is not None, "no runsc: ./run test installs it"
    driver = NamespaceDriver(
        tmp_path / "data",
        clock=lambda: datetime.now(UTC),
        inside=Gvisor(runsc) if request.param == "gvisor" else None,
    )
    path = str(tmp_path / "exit.sock")
    async with Exit(path) as found:
        spec = SandboxSpec(
            id="sbx_exitaaaa", exit=SandboxExit(socket_path=path, ca_certificate=CERTIFICATE)
        )
        yield driver, await driver.create(spec), found
        await driver.destroy(spec.id)


def python(script):
    return ExecRequest(argv=("python3", "-c", script), cwd="/", timeout_seconds=20)


async def test_a_flow_arrives_with_its_destination(world):
    _, box, found = world
    result = await box.exec(python(CONNECT))
    assert result.stdout == b"b'got ping'\n", result.stderr
    assert found.seen == [(1, 8080, "192.0.2.7")]


async def test_a_refused_flow_is_reset(world):
    _, box, found = world
    found.verdict = b"\1"
    result = await box.exec(python(CONNECT))
    assert result.exit_code == 1
    assert b"Error" in result.stderr
    assert len(found.seen) == 1


async def test_without_the_other_side_nothing_leaves(world):
    _, box, found = world
    assert (await box.exec(python(CONNECT))).exit_code == 0
    found.server.close()
    Path(found.path).unlink()
    result = await box.exec(python(CONNECT))
    assert result.exit_code == 1
    assert b"Error" in result.stderr


async def test_names_are_asked_at_the_exit(world):
    _, box, found = world
    found.verdict = b"\1"
    script = (
        "import socket\ntry: socket.getaddrinfo('example.com', 80)\nexcept OSError as e: print(e)"
    )
    result = await box.exec(python(script))
    assert b"failure" in result.stdout or b"not known" in result.stdout
    assert {kind for kind, _, _ in found.seen} == {2}


async def test_the_bundle_is_trusted_and_read_only(world):
    _, box, _ = world
    path = "/etc/ssl/certs/ca-certificates.crt"
    text = (await box.files.read(path)).decode()
    assert text.endswith(CERTIFICATE)
    assert text.count("BEGIN CERTIFICATE") > 1
    changed = await box.exec(ExecRequest(argv=("sh", "-c", f"echo x >>{path}; rm -f {path}")))
    assert changed.exit_code != 0
    assert (await box.files.read(path)).decode() == text


async def test_the_exit_has_no_path_inside(world):
    _, box, found = world
    result = await box.exec(ExecRequest(argv=("sh", "-c", f"ls {found.path}; cat /proc/net/unix")))
    assert found.path.encode() not in result.stdout
