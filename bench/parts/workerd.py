"""workerd as another's way to isolates: dynamic workers of one process, and a process for each session."""

import asyncio
import contextlib
import http.client
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from harness import PEERS, Arm, Bench, Skip
from parts.cells import private_kib

PROGRAM = PEERS / "workerd/node_modules/@cloudflare/workerd-linux-64/bin/workerd"
CODE = "40 + 2"
_HOST = """
export default {
  async fetch(request, env) {
    const { name, code } = await request.json();
    const worker = env.LOADER.get(name, async () => ({
      compatibilityDate: "2026-01-01",
      mainModule: "main.js",
      modules: { "main.js": `export default { async fetch() { return Response.json(${code}); } };` },
      globalOutbound: null,
    }));
    return worker.getEntrypoint().fetch("http://worker/");
  },
};
"""
_CONFIGURATION = """
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [ (name = "main", worker = .host) ],
  sockets = [ (name = "http", address = "unix:SOCKET", http = (), service = "main") ],
  v8Flags = ["--max-heap-size=128"]
);
const host :Workerd.Worker = (
  modules = [ (name = "host.js", esModule = embed "host.js") ],
  compatibilityDate = "2026-01-01",
  compatibilityFlags = ["experimental"],
  bindings = [ (name = "LOADER", workerLoader = ()) ]
);
"""
_START_SECONDS = 20.0
_SHARE = 100


class _Connection(http.client.HTTPConnection):
    """HTTP over the socket of a file."""

    def __init__(self, path: Path) -> None:
        super().__init__("workerd", timeout=_START_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect, waiting for whoever is to listen."""
        until = time.monotonic() + _START_SECONDS
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            try:
                self.sock.connect(str(self._path))
            except (FileNotFoundError, ConnectionRefusedError):
                self.sock.close()
                if time.monotonic() > until:
                    raise
                time.sleep(0.0005)
            else:
                return


class Workerd:
    """One process. Names of workers are not used twice: it keeps what it knows by name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made = 0
        directory.mkdir()
        (directory / "host.js").write_text(_HOST)
        configuration = directory / "config.capnp"
        configuration.write_text(_CONFIGURATION.replace("SOCKET", str(directory / "s")))
        self.process = subprocess.Popen(
            [PROGRAM, "serve", configuration, "--experimental"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._connection = _Connection(directory / "s")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self._directory)

    def created(self) -> None:
        """Make a worker and take its first result."""
        self._made += 1
        self.run(f"worker-{self._made}")

    def run(self, name: str) -> None:
        """Have a worker run, one that is made if there is none of its name."""
        body = f'{{"name": "{name}", "code": "{CODE}"}}'
        self._connection.request("POST", "/", body)
        answer = self._connection.getresponse().read()
        if answer != b"42":
            raise RuntimeError(f"workerd gave {answer[:200]!r}")


@contextlib.contextmanager
def _place(bench: Bench) -> Iterator[Path]:
    if not PROGRAM.exists():
        raise Skip("workerd is not installed: ./run bench brings it")
    told = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    bench.versions["workerd"] = told.stdout.split()[-1]
    place = Path(tempfile.mkdtemp(prefix="handiwork-workerd-"))
    try:
        yield place
    finally:
        shutil.rmtree(place)


@contextlib.contextmanager
def arms(bench: Bench) -> Iterator[dict[str, Arm]]:
    """Yield a dynamic worker of a process that all share, a warm one of it, and a process with one worker."""
    with _place(bench) as place, Workerd(place / "shared") as shared:
        shared.run("warm")
        yield {
            "workerd_dynamic_ms": lambda: asyncio.to_thread(shared.created),
            "workerd_warm_ms": lambda: asyncio.to_thread(shared.run, "warm"),
            "workerd_process_ms": lambda: asyncio.to_thread(_one, place / "one"),
        }


def _one(place: Path) -> float:
    before = time.perf_counter()
    with Workerd(place) as made:
        made.created()
        return time.perf_counter() - before


def measure_idle(bench: Bench) -> None:
    """Private memory of a process with one worker, and what a worker adds to one that all share."""
    with _place(bench) as place, contextlib.ExitStack() as stack:
        many = [
            stack.enter_context(Workerd(place / f"{number}"))
            for number in range(bench.times(20, 5))
        ]
        for one in many:
            one.created()
        weighed = [private_kib(one.process.pid) for one in many]
        bench.record("workerd_process_mb", weighed, "MB", scale=1024 / 1e6)
        shared = many[0]
        before = private_kib(shared.process.pid)
        for _ in range(_SHARE):
            shared.created()
        grown = (private_kib(shared.process.pid) - before) / _SHARE
        bench.record("workerd_dynamic_mb", [grown], "MB", scale=1024 / 1e6, of=_SHARE)
