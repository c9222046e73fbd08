"""Intercepted HTTPS requests with an injected key, from inside a sandbox: ours and mitmproxy's.

Both ways start in a sandbox of the same driver, with the same client, connections and upstream. In
ours the exit is the egress proxy; in the other a bridge to mitmproxy stands in its place.
"""

import asyncio
import contextlib
import ipaddress
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from handiwork.config import ProcessSettings
from handiwork.egress.control import ProxySettings
from handiwork.egress.registry import EgressRegistry
from handiwork.model.egress import EgressBinding, EgressGrant
from handiwork.model.ids import DEFAULT_TENANT
from handiwork.model.injection import HeaderInjection
from handiwork.model.policy import Match, Policy, PolicyLayer, ServiceRule, ServiceTarget
from handiwork.model.sandbox import ExecRequest, SandboxExit
from handiwork.model.sealing import ENTROPY_BYTES as SEAL_BYTES
from handiwork.model.sealing import seal
from harness import Bench, Skip, peer
from parts import started
from parts.creation import Sandboxes

HERE = Path(__file__).parent
NAME = "api.bench.test"
ADDRESS = "192.0.2.10"  # what the sandboxes' hosts file gives; nothing is there
CONNECTIONS = 16
READY_SECONDS = 20.0
ADDON = 'def request(flow): flow.request.headers["authorization"] = "Bearer {}"\n'


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """Write a certificate for the upstream that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName(
        [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, private = directory / "upstream.pem", directory / "upstream.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, private


@asynccontextmanager
async def our_exit(directory: Path, port: int, anchor: str, key: str) -> AsyncIterator[SandboxExit]:
    """Yield the exit of a proxy process with a rule that injects the key."""
    keys, audit = directory / "keys", directory / "audit"
    user = ProcessSettings().egress_id
    command = [sys.executable, "-m", "handiwork.egress", "--log-level", "warning"]
    for path in (keys, audit):
        path.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(path, user, user)
    if os.geteuid() == 0:
        command += ["--user", str(user)]
    ours, theirs = socket.socketpair()
    async with EgressRegistry(
        directory / "exits", ProxySettings(keys=str(keys), audit=str(audit))
    ) as registry:
        child = started.start([*command, "--control", str(theirs.fileno())], keep=[theirs.fileno()])
        theirs.close()
        try:
            registry.attach(ours)
            sealed = seal(
                await registry.seal_key(DEFAULT_TENANT),
                tenant=DEFAULT_TENANT,
                name="bench",
                version=1,
                hosts=(NAME,),
                value=key,
                entropy=os.urandom(SEAL_BYTES),
            )
            layer = PolicyLayer(scope="agent", policy=policy(port, anchor))
            binding = EgressBinding(id="eb_bench0001", kind="sandbox", ca_id="sb_bench0001")
            way = await registry.open(binding, EgressGrant(layers=(layer,), secrets=(sealed,)))
            yield SandboxExit(socket_path=way.path, ca_certificate=way.ca_certificate)
        finally:
            registry.close_all()
            await asyncio.to_thread(child.wait, READY_SECONDS)


def policy(port: int, anchor: str) -> Policy:
    """Return one rule: the name stands for the upstream, and gets the key."""
    rule = ServiceRule(
        id="upstream",
        match=Match(hosts=(NAME,)),
        service=ServiceTarget(name="upstream", address="127.0.0.1", port=port, trust_anchor=anchor),
        inject=(HeaderInjection(header="authorization", value="Bearer ${secret:bench}"),),
    )
    return Policy(name="bench", rules=(rule,))


@asynccontextmanager
async def mitmproxy_exit(
    directory: Path, port: int, anchor: Path, key: str
) -> AsyncIterator[SandboxExit]:
    """Yield an exit that a bridge carries to mitmproxy; Skip when it is not there."""
    mitmdump = peer("mitmproxy", "mitmdump")
    addon = directory / "addon.py"
    addon.write_text(ADDON.format(key))
    listening = free_port()
    home = directory / "mitmproxy"
    options = [
        "flow_detail=0",
        f"confdir={home}",
        "keep_host_header=true",
        f"ssl_verify_upstream_trusted_ca={anchor}",
    ]
    child = started.start(
        [str(mitmdump), "-q", "-s", str(addon)]
        + ["--mode", f"reverse:https://127.0.0.1:{port}@127.0.0.1:{listening}"]
        + [word for option in options for word in ("--set", option)]
    )
    try:
        await listens(listening)
        path = directory / "bridge.sock"
        with started.python(HERE / "bridge.py", path, str(listening)):
            authority = (home / "mitmproxy-ca-cert.pem").read_text()
            yield SandboxExit(socket_path=str(path), ca_certificate=authority)
    finally:
        child.terminate()
        await asyncio.to_thread(child.wait, READY_SECONDS)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


async def listens(port: int) -> None:
    """Wait until somebody listens."""
    async with asyncio.timeout(READY_SECONDS):
        while True:
            with contextlib.suppress(ConnectionError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)


async def run(box, *argv: str) -> str:
    """Run a command in a sandbox and return what it printed; an error is a fault of ours."""
    ended = await box.exec(ExecRequest(argv=argv, timeout_seconds=60))
    if ended.exit_code != 0:
        raise RuntimeError(f"{argv[0]} ended with {ended.exit_code}: {ended.stderr[-500:]!r}")
    return ended.stdout.decode()


async def requests_per_second(box, seconds: int) -> float:
    """Load the upstream from inside a sandbox for some seconds."""
    told = await run(box, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", f"https://{NAME}/v1/x")
    if "Non-2xx" in told or "Socket errors" in told:
        raise RuntimeError(f"not every request was answered:\n{told}")
    return float(re.search(r"Requests/sec:\s*([\d.]+)", told).group(1))


async def prepare(box) -> None:
    """Give the sandbox the name, and see that a client which verifies gets the key injected."""
    await run(box, "sh", "-c", f"echo {ADDRESS} {NAME} >>/etc/hosts")
    told = await run(box, "curl", "-sS", "--max-time", "20", f"https://{NAME}/v1/x")
    if told != "right":
        raise RuntimeError(f"the key was not injected: the upstream answered {told!r}")


async def measure(bench: Bench, boxes: Sandboxes) -> None:
    """https_inject_vs_mitmproxy_ratio: requests a second, in turns."""
    if shutil.which("wrk") is None:
        raise Skip("wrk is not installed: apt-get install wrk")
    key = secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(prefix="hw-inject-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        pem, private = make_certificate(directory)
        upstream = started.python(HERE / "upstream.py", pem, private, given=key + "\n")
        with upstream as port:
            async with (
                mitmproxy_exit(directory, int(port), pem, key) as theirs,
                our_exit(directory, int(port), pem.read_text(), key) as ours,
                boxes.one(ours) as our_box,
                boxes.one(theirs) as their_box,
            ):
                await compare(bench, our_box, their_box)


async def compare(bench: Bench, ours, theirs) -> None:
    """Load both in turns; each pair of runs gives one ratio."""
    for box in (ours, theirs):
        await prepare(box)
        await requests_per_second(box, 1)
    seconds = bench.times(5, 2)
    pairs = []
    for turn in range(bench.times(5, 3)):
        order = [ours, theirs] if turn % 2 == 0 else [theirs, ours]
        found = {id(box): await requests_per_second(box, seconds) for box in order}
        pairs.append((found[id(ours)], found[id(theirs)]))
    right, wrong = map(int, (await run(ours, "curl", "-sS", f"https://{NAME}/count")).split())
    if wrong:
        raise RuntimeError(f"{wrong} of {right + wrong} requests came without the key")
    told = await asyncio.to_thread(
        subprocess.run, [peer("mitmproxy", "mitmdump"), "--version"], capture_output=True, text=True
    )
    bench.versions["mitmproxy"] = told.stdout.split()[1]
    bench.ratio(
        "https_inject_vs_mitmproxy_ratio",
        [our / their for our, their in pairs],
        requests_per_s=sorted(our for our, _ in pairs)[len(pairs) // 2],
        mitmproxy_requests_per_s=sorted(their for _, their in pairs)[len(pairs) // 2],
        connections=CONNECTIONS,
        client="wrk, 1 thread, inside the sandbox",
    )
